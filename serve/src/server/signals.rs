//! The signals that end the server, and those that it passes over.

use std::io;

use hydit_terminal::note;
use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::leave::leave;

/// Signals whose default is to end the process, and that mean nothing to it. With the last the
/// system tells of a file that has reached its limit, which the write that failed tells as well.
const PASSED_OVER: [Number; 6] =
    [Number::USR1, Number::USR2, Number::ALARM, Number::VTALARM, Number::PROF, Number::XFSZ];

/// The signals that end the server, taken over from the system.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` where the process was started to outlive its terminal, as by nohup.
    hang_up: Option<Signal>,
}

/// A signal that was received.
#[derive(Clone, Copy, Debug)]
pub enum Received {
    Terminate,
    Interrupt,
    HangUp,
}

impl Received {
    /// The signal's name.
    pub fn name(self) -> &'static str {
        match self {
            Received::Terminate => "SIGTERM",
            Received::Interrupt => "SIGINT",
            Received::HangUp => "SIGHUP",
        }
    }

    /// The exit code by which shells report the signal: 128 plus its number.
    fn exit_code(self) -> i32 {
        match self {
            Received::Terminate => 143,
            Received::Interrupt => 130,
            Received::HangUp => 129,
        }
    }
}

/// Takes the signals over from the system, which would end the process. The first that asks for
/// its end is told; the second ends it at once, whatever it is doing. To be called in a tokio
/// runtime.
///
/// # Errors
/// When the system does not allow it.
pub fn take_over() -> io::Result<oneshot::Receiver<Received>> {
    for number in PASSED_OVER {
        drop(signal(SignalKind::from_raw(number.as_raw()))?); // what tokio has taken over stays so
    }
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hang_up: if is_ignored(Number::HUP) { None } else { Some(signal(SignalKind::hangup())?) },
    };
    let (told, first) = oneshot::channel();
    tokio::spawn(async move {
        let _ = told.send(signals.next().await);
        let second = signals.next().await;
        note(format_args!("error: {} received again: quitting at once", second.name()));
        leave(second.exit_code());
    });
    Ok(first)
}

impl Signals {
    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.interrupt.recv() => Received::Interrupt,
            Some(_) = async { self.hang_up.as_mut()?.recv().await } => Received::HangUp,
        }
    }
}

/// Whether the process was started with this signal ignored.
fn is_ignored(signal: Number) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}
