//! What is under way, together with the memory that it uses.

use super::board::Board;
use crate::exchange::pause::Patience;
use crate::fault::{Fault, Kind, Result};
use crate::host::cluster;
use crate::host::cluster::desk::{Desk, at_board};

/// Looks whether a part is complete, and puts what has come into the buffers.
pub(super) type Look<B> = Box<dyn FnMut(&mut B, &mut Board, &mut Desk<'_>) -> Result<bool>>;

/// Buffers, and what is under way with them.
pub(in crate::exchange) struct Flight<B> {
    buffers: B,
    looks: Vec<Look<B>>,
}

impl<B> Flight<B> {
    /// *Local.* With `looks` under way.
    pub(super) fn new(buffers: B, looks: Vec<Look<B>>) -> Self {
        at_board(|_: &mut Board, desk| looks.iter().for_each(|_| desk.request(true)));
        Flight { buffers, looks }
    }

    /// *Local.* Whether all is complete.
    pub(in crate::exchange) fn test(&mut self) -> Result<bool> {
        cluster::at_exchange();
        self.look()
    }

    fn look(&mut self) -> Result<bool> {
        let (buffers, looks) = (&mut self.buffers, &mut self.looks);
        let looked = at_board(|board: &mut Board, desk| {
            let mut number = 0;
            while number < looks.len() {
                if looks[number](buffers, board, desk)? {
                    drop(looks.swap_remove(number));
                    desk.request(false);
                } else {
                    number += 1;
                }
            }
            Ok(looks.is_empty())
        });
        looked.unwrap_or_else(|| Err(Fault::new(Kind::Mpi, "no cluster")))
    }

    /// *Local.* Waits until all is complete, and gives the buffers back.
    pub(in crate::exchange) fn wait(mut self, _: Patience) -> Result<B> {
        cluster::at_exchange();
        while !self.look()? {
            cluster::rest(None);
        }
        Ok(self.buffers)
    }
}
