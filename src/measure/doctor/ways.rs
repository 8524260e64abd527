//! The ways by which the MPI library moves bytes, by what of it is loaded.

use super::finding::Finding;
use super::system::{Machine, Seat};
use crate::fault::plain::first;

const TOPIC: &str = "mpi";
const MEMORY: &str = "shared memory";
const TCP: &str = "TCP";
/// How files begin that are loaded for a way. A library that has all in one file isn't told from others so.
const LOADED: [(&str, &str); 11] = [
    ("mca_btl_vader", MEMORY),
    ("mca_btl_sm.", MEMORY),
    ("mca_btl_smcuda", MEMORY),
    ("mca_btl_tcp", TCP),
    ("mca_btl_openib", "InfiniBand verbs"),
    ("mca_btl_uct", "UCX"),
    ("mca_pml_ucx", "UCX"),
    ("libucp.so", "UCX"),
    ("mca_mtl_ofi", "libfabric"),
    ("libfabric.so", "libfabric"),
    ("mca_mtl_psm2", "PSM"),
];
/// Cards that are named in a line.
const NAMED_MAX: usize = 4;

/// Which ways are used, and whether they suit the place. Local.
pub(super) fn checks(machine: &Machine, seat: &Seat) -> Option<Finding> {
    let loaded = loaded(machine);
    let mut ways = loaded.join(", ");
    if let Some(device) = &seat.device {
        ways = match ways.is_empty() {
            true => device.clone(),
            false => format!("{device}: {ways}"),
        };
    }
    if seat.processes == 1 || ways.is_empty() {
        return None;
    }
    let found = format!("bytes go by {ways}");
    let only_tcp = loaded == [TCP];
    if only_tcp && seat.neighbours > 1 {
        let advice = "processes of a node can share memory, which is faster: leave out the choice of btl \
                      (OMPI_MCA_btl), or name vader or sm, too";
        return Some(Finding::odd(TOPIC, found, advice));
    }
    let plain = !loaded.is_empty() && loaded.iter().all(|way| [MEMORY, TCP].contains(way));
    if plain && seat.nodes > 1 && !machine.cards.is_empty() {
        let cards = first(&machine.cards, NAMED_MAX);
        let found = format!("{found}, and there are faster network cards: {cards}");
        let advice = "take an MPI that is built with UCX or libfabric; if it is, OMPI_MCA_pml and \
                      OMPI_MCA_btl keep it from using them";
        return Some(Finding::odd(TOPIC, found, advice));
    }
    Some(Finding::right(TOPIC, found))
}

/// The ways that files are loaded for.
fn loaded(machine: &Machine) -> Vec<&'static str> {
    let maps = (machine.text)("/proc/self/maps").unwrap_or_default();
    let mut ways = Vec::new();
    for line in maps.lines() {
        let file = line.rsplit('/').next().unwrap_or_default();
        let way = LOADED.iter().find(|(begins, _)| file.starts_with(begins));
        if let Some((_, way)) = way
            && !ways.contains(way)
        {
            ways.push(*way);
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn found(maps: &'static str, nodes: u64, cards: &[&str]) -> Option<(State, String)> {
        let machine = Machine {
            text: Box::new(move |path| (path == "/proc/self/maps").then(|| maps.to_owned())),
            cards: cards.iter().map(|card| (*card).to_owned()).collect(),
            ..Machine::sound()
        };
        let seat = Seat {
            nodes,
            ..Seat::pair()
        };
        checks(&machine, &seat).map(|finding| (finding.state, finding.found))
    }

    #[test]
    fn ways_are_told_by_what_is_loaded() {
        let both = "7f00-7f01 r-xp 0 0:0 1 /usr/lib/openmpi/mca_btl_vader.so\n\
                    7f01-7f02 r--p 0 0:0 1 /usr/lib/openmpi/mca_btl_vader.so\n\
                    7f02-7f03 r-xp 0 0:0 2 /usr/lib/openmpi/mca_btl_tcp.so\n";
        let right = |text: &str| Some((State::Right, text.to_owned()));
        assert_eq!(found(both, 2, &[]), right("bytes go by shared memory, TCP"));
        assert_eq!(
            found("7f-80 r-xp 0 0:0 1 /lib/libmpi.so.40\n", 2, &[]),
            None
        );
        let (state, text) = found(both, 2, &["mlx5_0"]).unwrap();
        assert_eq!(state, State::Odd);
        assert!(text.contains("mlx5_0"), "{text}");
        // On one node a card is of no use.
        assert_eq!(found(both, 1, &["mlx5_0"]).unwrap().0, State::Right);
        let ucx = "7f-80 r-xp 0 0:0 1 /usr/lib/libucp.so.0.0.0\n";
        assert_eq!(found(ucx, 2, &["mlx5_0"]), right("bytes go by UCX"));
        let tcp = "7f-80 r-xp 0 0:0 1 /usr/lib/openmpi/mca_btl_tcp.so\n";
        assert_eq!(found(tcp, 1, &[]).unwrap().0, State::Odd);
    }

    #[test]
    fn a_library_s_own_words_are_told() {
        let seat = Seat {
            device: Some("ch4:ofi".to_owned()),
            ..Seat::pair()
        };
        let finding = checks(&Machine::sound(), &seat).unwrap();
        assert_eq!(finding.found, "bytes go by ch4:ofi");
    }
}
