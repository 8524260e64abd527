//! Puts a state on a real file system, and looks at one.

use crate::cut::{Modified, State};
use crate::disk::{Disk, Kind, Node, children};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// All that stands below a directory: of a file its bytes, of a directory none.
pub type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Makes `root`, where nothing may stand, what the state has.
pub fn place(state: &State, disk: &Disk, begun: SystemTime, root: &Path) {
    std::fs::create_dir(root).expect("a root");
    let mut made: HashMap<Node, PathBuf> = HashMap::new();
    let mut open = vec![(disk.root, root.to_path_buf())];
    while let Some((directory, path)) = open.pop() {
        for (name, node) in children(&state.names, directory) {
            let path = path.join(OsStr::from_bytes(name));
            match &disk.inodes[node].kind {
                Kind::Directory => {
                    std::fs::create_dir(&path).expect("a directory");
                    open.push((node, path));
                }
                Kind::Link(target) => {
                    std::os::unix::fs::symlink(OsStr::from_bytes(target), &path).expect("a link");
                }
                Kind::File => match made.get(&node) {
                    Some(first) => std::fs::hard_link(first, &path).expect("another name"),
                    None => {
                        let content = &state.contents[&node];
                        std::fs::write(&path, &content.bytes).expect("written");
                        let time = match content.modified {
                            Modified::Before(time) => time,
                            Modified::Step(step) => begun + Duration::from_micros(step as u64),
                        };
                        let file = std::fs::File::options().write(true).open(&path);
                        file.and_then(|file| file.set_modified(time))
                            .expect("a time");
                        made.insert(node, path);
                    }
                },
            }
        }
    }
}

/// What stands at `directory`; none if nothing does.
pub fn image(directory: &Path) -> Option<Image> {
    let mut found = Image::new();
    let mut open = vec![directory.to_path_buf()];
    std::fs::symlink_metadata(directory).ok()?;
    while let Some(path) = open.pop() {
        let inside = path.strip_prefix(directory).expect("below").to_path_buf();
        let metadata = std::fs::symlink_metadata(&path).expect("it stands");
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a directory");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
            found.insert(inside, None);
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).expect("a link");
            found.insert(inside, Some(target.as_os_str().as_bytes().to_vec()));
        } else {
            found.insert(inside, Some(std::fs::read(&path).expect("a file")));
        }
    }
    Some(found)
}

/// The same of the whole disk after all steps.
pub fn expected(disk: &Disk) -> Image {
    let mut found = Image::new();
    let mut open = vec![(disk.root, PathBuf::new())];
    while let Some((directory, path)) = open.pop() {
        found.insert(path.clone(), None);
        for (name, node) in children(&disk.after, directory) {
            let path = path.join(OsStr::from_bytes(name));
            match &disk.inodes[node].kind {
                Kind::Directory => open.push((node, path)),
                Kind::File => {
                    let bytes = disk.bytes(node, disk.steps.len(), |_| true);
                    found.insert(path, Some(bytes));
                }
                Kind::Link(target) => {
                    found.insert(path, Some(target.clone()));
                }
            }
        }
    }
    found
}

/// Hidden names that a run has made for itself, anywhere below `root`.
pub fn hidden(root: &Path) -> Vec<PathBuf> {
    let all = image(root).unwrap_or_default();
    let is_hidden = |path: &PathBuf| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.contains(".shardloom"))
    };
    all.into_keys().filter(is_hidden).collect()
}
