//! The signals that end the server.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub enum Received {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Received {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Received::Terminate => "SIGTERM",
            Received::Interrupt => "SIGINT",
        }
    }

    /// As shells tell it: 128 and the signal's number.
    fn exit_code(self) -> i32 {
        match self {
            Received::Terminate => 143,
            Received::Interrupt => 130,
        }
    }
}

impl Signals {
    /// Takes the signals over from the system, which would end the process.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> std::io::Result<Signals> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Signals { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next of them.
    pub async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.interrupt.recv() => Received::Interrupt,
        }
    }

    /// Ends the process at the next of them, whatever it does.
    pub async fn quit_at_next(mut self) {
        let signal = self.next().await;
        eprintln!("error: {} received again: quitting at once", signal.name());
        std::process::exit(signal.exit_code());
    }
}
