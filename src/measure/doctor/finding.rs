//! What was found, and how bad it is.

use crate::exchange::{Topology, World};
use serde::{Deserialize, Serialize};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// As it should be.
    Right,
    /// Jobs run; slower, or with less than they could have.
    Odd,
    /// Jobs fail, or results may be lost.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it belongs to: `mpi`, `cores`, `limits`, `memory`, `clocks`, `launcher`, or a path.
    pub topic: String,
    /// How bad it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to change, where something is to be changed.
    pub advice: Option<String>,
    /// The nodes where it was found.
    pub nodes: Vec<String>,
}

impl Finding {
    /// Something as it should be.
    pub(super) fn right(topic: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding {
            topic: topic.into(),
            state: State::Right,
            found: found.into(),
            advice: None,
            nodes: Vec::new(),
        }
    }

    /// Something that could be better, and how.
    pub(super) fn odd(
        topic: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            state: State::Odd,
            advice: Some(advice.into()),
            ..Finding::right(topic, found)
        }
    }

    /// Something that must be changed, and how.
    pub(super) fn wrong(
        topic: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            state: State::Wrong,
            ..Finding::odd(topic, found, advice)
        }
    }

    /// The same, found on `node`.
    pub(super) fn on(mut self, node: &str) -> Finding {
        self.nodes = vec![node.to_owned()];
        self
    }
}

/// What the whole examination came to.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Examined {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// How many processes looked.
    pub processes: u32,
    /// The nodes that they run on.
    pub nodes: Vec<String>,
    /// What they found, in the order in which it was looked at.
    pub findings: Vec<Finding>,
}

impl Examined {
    /// What all have found. Local.
    pub(super) fn new(world: &World, topology: &Topology, findings: Vec<Finding>) -> Examined {
        Examined {
            ok: findings.iter().all(|finding| finding.state < State::Wrong),
            processes: world.size(),
            nodes: topology.hostnames.clone(),
            findings,
        }
    }
}

/// The findings of all, by topic, each once, with all nodes that have it.
pub(super) fn merged(all: Vec<Vec<Finding>>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in all.into_iter().flatten() {
        let same = merged.iter_mut().find(|known| {
            (&known.topic, known.state, &known.found, &known.advice)
                == (
                    &finding.topic,
                    finding.state,
                    &finding.found,
                    &finding.advice,
                )
        });
        match same {
            Some(known) => {
                for node in finding.nodes {
                    if !known.nodes.contains(&node) {
                        known.nodes.push(node);
                    }
                }
            }
            None => merged.push(finding),
        }
    }
    let mut topics: Vec<String> = Vec::new();
    for finding in &merged {
        if !topics.contains(&finding.topic) {
            topics.push(finding.topic.clone());
        }
    }
    merged.sort_by_key(|finding| topics.iter().position(|topic| *topic == finding.topic));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_findings_are_told_once() {
        let here = |node: &str| Finding::right("memory", "8 GiB").on(node);
        let other = Finding::right("memory", "4 GiB").on("c");
        let cores = Finding::right("cores", "8");
        let merged = merged(vec![
            vec![here("a"), cores.clone()],
            vec![here("b"), other.clone()],
        ]);
        assert_eq!(merged[0].nodes, ["a", "b"]);
        assert_eq!(merged[1..], [other, cores]);
    }
}
