//! What the MPI library is told before it starts.
//!
//! OpenMPI looks for every network at start-up. Where all processes are on one node that only
//! costs time (0.3 s against 0.1 for two processes), so it is told not to. What the user has set
//! stays. Other MPI libraries don't read these variables, but for hwloc's: each of its plugins costs every process
//! libraries to load (eight processes on two cores start 15 ms sooner without).

#![cfg_attr(all(feature = "mpi", not(test)), allow(unsafe_code))]

#[cfg(all(feature = "mpi", not(test)))]
use rustix::thread::set_current_timer_slack;
#[cfg(not(test))]
use std::env;
#[cfg(all(feature = "mpi", not(test)))]
use std::ffi::c_int;
#[cfg(all(feature = "mpi", not(test)))]
use std::num::NonZeroU64;

#[cfg(all(feature = "mpi", not(test)))]
unsafe extern "C" {
    /// Of the C library: how a signal is met from now on.
    fn signal(number: c_int, handler: usize) -> usize;
}

/// The signal of a file that is longer than the limit.
#[cfg(all(feature = "mpi", not(test)))]
const FILE_TOO_LONG: c_int = 25;
/// By how much the system may lengthen a sleep.
#[cfg(all(feature = "mpi", not(test)))]
const SLACK_NANOSECONDS: u64 = 1000;
/// A signal is not heard; what caused it gives an error.
#[cfg(all(feature = "mpi", not(test)))]
const IGNORED: usize = 1;

/// *Local.* Sets the environment, lets a file that would be too long be an error and no death, and sleeps be as long
/// as they are meant. To be called before MPI starts.
///
/// # Safety
///
/// No other thread may run.
#[cfg(all(feature = "mpi", not(test)))]
pub(super) unsafe fn prepare() {
    // SAFETY: no handler runs, and no other thread that could change it at the same time.
    unsafe { signal(FILE_TOO_LONG, IGNORED) };
    // Else a rest of some microseconds between two looks is fifty longer.
    if let Err(error) = set_current_timer_slack(NonZeroU64::new(SLACK_NANOSECONDS)) {
        tracing::debug!("sleeps stay as they are: {error}");
    }
    for (name, value) in choices(|name| env::var(name).ok()) {
        // SAFETY: the caller promises that no other thread reads the environment.
        unsafe { env::set_var(name, value) };
    }
}

/// Plugins of hwloc, which MPI libraries ask for the machine's cores, that look for displays: they load X11 and OpenCL.
#[cfg(feature = "mpi")]
const DISPLAYS: &str = "hwloc_gl.so,hwloc_opencl.so";
/// Those, and what looks for network cards, and reads XML with a library though hwloc can without.
#[cfg(feature = "mpi")]
const DISPLAYS_AND_DEVICES: &str = "hwloc_gl.so,hwloc_opencl.so,hwloc_pci.so,hwloc_xml_libxml.so";

/// What to set, given what is set.
#[cfg(feature = "mpi")]
fn choices(get: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, &'static str)> {
    let number = |name| get(name).and_then(|text| text.parse::<usize>().ok());
    let all = number("OMPI_COMM_WORLD_SIZE");
    let here = number("OMPI_COMM_WORLD_LOCAL_SIZE");
    let mut choices = Vec::new();
    let one_node = all.is_some() && all == here;
    if one_node {
        choices.extend([("OMPI_MCA_pml", "ob1"), ("OMPI_MCA_btl", "vader,self")]);
    }
    let launched = ["PMIX_RANK", "PMI_RANK", "PMI_SIZE", "SLURM_PROCID"];
    if all.is_none() && !launched.iter().any(|name| get(name).is_some()) {
        choices.extend([
            ("OMPI_MCA_ess_singleton_isolated", "1"),
            ("OMPI_MCA_mtl", "^ofi"),
            // All of a user's would share one directory, which the first to end removes under the
            // others' hands.
            ("OMPI_MCA_orte_create_session_dirs", "0"),
        ]);
    }
    let plugins = if one_node {
        DISPLAYS_AND_DEVICES
    } else {
        DISPLAYS
    };
    choices.push(("HWLOC_PLUGINS_BLACKLIST", plugins));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if here.is_some_and(|here| here > cores) {
        choices.push(("OMPI_MCA_mpi_yield_when_idle", "1"));
    }
    choices.retain(|(name, _)| get(name).is_none());
    choices
}

/// *Local.* How many processes a launcher has started, as far as its variables tell.
#[cfg(not(any(feature = "mpi", test)))]
pub(super) fn launched_processes() -> Option<u32> {
    let names = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE"];
    names
        .iter()
        .find_map(|name| env::var(name).ok()?.parse().ok())
}

#[cfg(all(test, feature = "mpi"))]
mod tests {
    use super::*;

    fn chosen(set: &[(&str, &str)]) -> Vec<&'static str> {
        let get = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        choices(get).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn looks_for_networks_where_there_are_several_nodes() {
        let several = [
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "1"),
        ];
        let plugins = ["HWLOC_PLUGINS_BLACKLIST"];
        assert_eq!(chosen(&several), plugins);
        assert_eq!(chosen(&[("PMI_RANK", "0"), ("PMI_SIZE", "4")]), plugins);
    }

    #[test]
    fn leaves_what_the_user_has_set() {
        let one_node = [
            ("OMPI_COMM_WORLD_SIZE", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "1"),
        ];
        assert_eq!(
            chosen(&one_node),
            ["OMPI_MCA_pml", "OMPI_MCA_btl", "HWLOC_PLUGINS_BLACKLIST"]
        );
        let mine = [one_node.as_slice(), &[("OMPI_MCA_pml", "ucx")]].concat();
        assert_eq!(chosen(&mine), ["OMPI_MCA_btl", "HWLOC_PLUGINS_BLACKLIST"]);
        assert_eq!(
            chosen(&[]),
            [
                "OMPI_MCA_ess_singleton_isolated",
                "OMPI_MCA_mtl",
                "OMPI_MCA_orte_create_session_dirs",
                "HWLOC_PLUGINS_BLACKLIST"
            ]
        );
    }
}
