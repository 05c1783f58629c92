//! The signals that stop a server: the first stops it gracefully, a second SIGINT or SIGTERM at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGINT, SIGTERM, SIGUSR1 and SIGUSR2.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Takes the signals over from the system's defaults.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal and gives its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.user1.recv() => "SIGUSR1",
            _ = self.user2.recv() => "SIGUSR2",
        }
    }

    /// Ends the process at the next SIGINT or SIGTERM, with the code a shell expects. Safe at any
    /// moment: what was acknowledged is in the log already, as after kill -9.
    pub(super) async fn exit_at_next(mut self) {
        let code = loop {
            match self.next().await {
                "SIGINT" => break 130,
                "SIGTERM" => break 143,
                _ => {}
            }
        };
        tracing::warn!("second signal, stopping at once");
        crate::native::end_process(code);
    }
}
