//! The signals that end the server.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, taken over from the system.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// A signal that was received.
#[derive(Clone, Copy, Debug)]
pub enum Received {
    Terminate,
    Interrupt,
}

impl Received {
    /// The signal's name.
    pub fn name(self) -> &'static str {
        match self {
            Received::Terminate => "SIGTERM",
            Received::Interrupt => "SIGINT",
        }
    }

    /// The exit code by which shells report the signal: 128 plus its number.
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
    /// When the system does not allow it.
    pub fn listen() -> std::io::Result<Signals> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Signals { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.interrupt.recv() => Received::Interrupt,
        }
    }

    /// Ends the process at the next signal, whatever it is doing.
    pub async fn quit_at_next(mut self) {
        let signal = self.next().await;
        eprintln!("error: {} received again: quitting at once", signal.name());
        std::process::exit(signal.exit_code());
    }
}
