//! How a step's output lies on disk.
//!
//! One record a line: `MS\tBYTES\n`, where `MS` is the time since the step began, in milliseconds, as decimal digits,
//! and `BYTES` is what the step printed (standard output and error together), raw, ANSI sequences included. A line
//! that is longer than [`LINE`] becomes several records. A record is written once its line has ended, with one `write`
//! for all that came together, so that whoever follows the file never waits for a buffer. Past the output limit
//! nothing more is kept but lines of the supervisor's own, which begin with [`OWN`].
//!
//! The reader turns bytes into text: what is no UTF-8 is replaced, so are control characters but ESC and TAB, and of a
//! line that was written over (carriage returns) the last state is shown, as a terminal would.

mod reader;
mod writer;

pub use reader::{LogLine, LogReader};
pub use writer::LogWriter;

/// The longest record, in bytes of output.
pub const LINE: usize = 16 * 1024;
/// How lines begin that the supervisor wrote itself.
pub const OWN: &str = "[switchover] ";
