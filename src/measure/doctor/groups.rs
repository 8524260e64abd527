//! The control groups that a process is in: a group has at most what each group above it has.

/// What the system's files say, by path.
type Read<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The directories of this process's group for `controller`, and of those above it.
fn directories(read: &Read<'_>, controller: &str) -> Vec<String> {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in groups.lines() {
        let Some((names, path)) = line
            .split_once(':')
            .and_then(|(_, rest)| rest.split_once(':'))
        else {
            continue;
        };
        let root = match names {
            // The second version has one tree for all controllers.
            "" => "/sys/fs/cgroup".to_owned(),
            names if names.split(',').any(|name| name == controller) => {
                format!("/sys/fs/cgroup/{controller}")
            }
            _ => continue,
        };
        let paths = above(path).into_iter();
        found.extend(paths.map(|path| format!("{root}{path}")));
    }
    found
}

/// A group's path and those above it: `/a/b`, `/a`, ``.
fn above(path: &str) -> Vec<&str> {
    let path = path.trim_end_matches('/');
    let mut all = vec![path];
    let mut rest = path;
    while let Some((parent, _)) = rest.rsplit_once('/') {
        all.push(parent);
        rest = parent;
    }
    all
}

/// The least of what `ask` says of each directory.
fn least(
    read: &Read<'_>,
    controller: &str,
    ask: impl Fn(&dyn Fn(&str) -> Option<String>) -> Option<u64>,
) -> Option<u64> {
    let directories = directories(read, controller).into_iter();
    let told = directories.filter_map(|directory| {
        let text = |file: &str| read(&format!("{directory}/{file}"));
        ask(&text)
    });
    told.min()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Memory, in bytes, if it is limited.
pub(super) fn memory_bytes(read: &Read<'_>) -> Option<u64> {
    least(read, "memory", |text| {
        let told = text("memory.max").or_else(|| text("memory.limit_in_bytes"));
        number(&told?)
    })
}

/// Time of cores, in hundredths of a core, if it is limited.
pub(super) fn core_hundredths(read: &Read<'_>) -> Option<u64> {
    least(read, "cpu", |text| {
        let (quota, period) = match text("cpu.max") {
            Some(both) => {
                let (quota, period) = both.trim().split_once(' ')?;
                (number(quota)?, number(period)?)
            }
            None => (
                number(&text("cpu.cfs_quota_us")?)?,
                number(&text("cpu.cfs_period_us")?)?,
            ),
        };
        quota.checked_mul(100)?.checked_div(period)
    })
}

/// Processes and threads, if they are limited.
pub(super) fn tasks(read: &Read<'_>) -> Option<u64> {
    least(read, "pids", |text| number(&text("pids.max")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(texts: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |path: &str| {
            let found = texts.iter().find(|(known, _)| *known == path);
            found.map(|(_, text)| (*text).to_owned())
        }
    }

    #[test]
    fn the_least_of_all_groups_holds() {
        let read = with(&[
            ("/proc/self/cgroup", "0::/pod/one\n"),
            ("/sys/fs/cgroup/pod/one/memory.max", "max\n"),
            ("/sys/fs/cgroup/pod/memory.max", "1073741824\n"),
            ("/sys/fs/cgroup/pod/one/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/pod/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/pids.max", "99\n"),
        ]);
        assert_eq!(memory_bytes(&read), Some(1 << 30));
        assert_eq!(core_hundredths(&read), Some(150));
        assert_eq!(tasks(&read), Some(99));
    }

    #[test]
    fn groups_of_the_first_version_are_read() {
        let read = with(&[
            ("/proc/self/cgroup", "4:memory:/job\n3:cpu,cpuacct:/job\n"),
            ("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4096\n"),
            ("/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "200000\n"),
            ("/sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(memory_bytes(&read), Some(4096));
        assert_eq!(core_hundredths(&read), Some(200));
        assert_eq!(tasks(&read), None);
    }
}
