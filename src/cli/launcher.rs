//! The launcher of this process, as far as the system can tell whether it lives.

use crate::store::io;
use std::ffi::OsString;

/// What the names of the variables begin with in which a launcher says where it listens (`PMIx` 2 to 6).
const VARIABLE: &str = "PMIX_SERVER_URI";
/// Where the system lists the sockets of a kind.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The state of a socket that listens, as the tables have it.
const LISTENS: &str = "0A";

/// Where a launcher listens.
pub(super) struct Launcher {
    port: u16,
}

impl Launcher {
    /// That of this process, if it has one that says where it listens.
    #[must_use]
    pub(super) fn of_this_process() -> Option<Launcher> {
        let named = |name: &OsString| name.to_string_lossy().starts_with(VARIABLE);
        let (_, address) = std::env::vars_os().find(|(name, _)| named(name))?;
        Launcher::at(&address.to_string_lossy())
    }

    /// `address` is as in `976814080.0;tcp4://127.0.0.1:54105`.
    fn at(address: &str) -> Option<Launcher> {
        let (_, address) = address.split_once("tcp")?;
        let (_, port) = address.rsplit_once(':')?;
        let port = port.parse().ok()?;
        Some(Launcher { port })
    }

    /// Whether somebody listens there still; taken for granted where the system doesn't tell.
    #[must_use]
    pub(super) fn lives(&self) -> bool {
        let tables = TABLES.map(io::read_text);
        let mut tables = tables.iter().flatten().peekable();
        tables.peek().is_none() || tables.any(|table| self.listens(table))
    }

    fn listens(&self, table: &str) -> bool {
        let port = format!(":{:04X}", self.port);
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let ours = fields
                .next()
                .is_some_and(|address| address.ends_with(&port));
            ours && fields.nth(1) == Some(LISTENS)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn reads_an_address() {
        let port = |address| Launcher::at(address).map(|launcher| launcher.port);
        assert_eq!(port("976814080.0;tcp4://127.0.0.1:54105"), Some(54105));
        assert_eq!(port("prterun-a-7@0.0;tcp6://[::1]:80"), Some(80));
        assert_eq!(port("pmix-server:12:/tmp/pmix-12"), None);
    }

    #[test]
    fn knows_whether_somebody_listens() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let port = listener.local_addr().expect("an address").port();
            let launcher = Launcher { port };
            assert!(launcher.lives(), "{address}");
            drop(listener);
            assert!(!launcher.lives(), "{address}");
        }
    }
}
