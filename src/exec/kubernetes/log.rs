//! A container's output, followed over a connection that may break.
//!
//! Every line comes with its time. After a break the API is asked for what came since the second of the last line ("Pod
//! v1", `sinceTime` counts whole seconds), and so many lines of that second are passed over as were there already.

use futures_util::AsyncReadExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};

use crate::cluster::Fault;

/// A line's time takes no more bytes than that.
const TIME: usize = 64;

/// What was read of a container's output, so that it can be gone on with.
#[derive(Debug, Default)]
pub struct Output {
    /// The second that is asked from.
    since: Option<i64>,
    /// Lines of that second or later ones that are through.
    lines: u64,
    /// Bytes of the line under way that are through.
    inside: u64,
    /// Of a new connection: lines and bytes still to be passed over.
    pass_lines: u64,
    pass_bytes: u64,
    state: At,
    stamp: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Stamp,
    Text {
        counts: bool,
    },
}

impl Output {
    /// The connection ended, and there is more to come: answers from when on to ask for it. None: from the begin.
    pub fn reconnect(&mut self) -> Option<Timestamp> {
        (self.pass_lines, self.pass_bytes) = (self.lines, self.inside);
        self.state = At::Stamp;
        self.stamp.clear();
        self.since.and_then(|s| Timestamp::from_second(s).ok())
    }

    /// Takes what came, and hands the text of new lines to `feed`.
    pub fn take(&mut self, mut bytes: &[u8], mut feed: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            match self.state {
                At::Stamp => {
                    let end = bytes.iter().position(|b| *b == b' ');
                    let part = &bytes[..end.unwrap_or(bytes.len())];
                    let room = TIME.saturating_sub(self.stamp.len());
                    self.stamp.extend_from_slice(&part[..part.len().min(room)]);
                    bytes = &bytes[part.len() + usize::from(end.is_some())..];
                    if end.is_some() {
                        self.line_begins();
                    }
                }
                At::Text { counts } => {
                    let end = bytes.iter().position(|b| *b == b'\n').map(|at| at + 1);
                    let part = &bytes[..end.unwrap_or(bytes.len())];
                    bytes = &bytes[part.len()..];
                    self.text(part, end.is_some(), counts, &mut feed);
                }
            }
        }
    }

    fn line_begins(&mut self) {
        let stamp = std::str::from_utf8(&self.stamp).ok().and_then(|s| s.parse::<Timestamp>().ok());
        self.stamp.clear();
        let second = stamp.map(Timestamp::as_second);
        // Before the second that is asked from: the clock was set back. Such a line would not come again.
        let counts = second.is_none() || self.since.is_none() || second >= self.since;
        if self.pass_lines == 0 && self.pass_bytes == 0 {
            if second > self.since {
                self.since = second;
                self.lines = 0;
            }
            self.inside = 0;
        }
        self.state = At::Text { counts };
    }

    fn text(&mut self, part: &[u8], ends: bool, counts: bool, feed: &mut impl FnMut(&[u8])) {
        if ends {
            self.state = At::Stamp;
        }
        if self.pass_lines > 0 {
            self.pass_lines -= u64::from(ends);
            return;
        }
        let known = self.pass_bytes.min(part.len() as u64);
        self.pass_bytes -= known;
        let fresh = &part[usize::try_from(known).unwrap_or(part.len())..];
        if !fresh.is_empty() {
            feed(fresh);
        }
        self.inside += fresh.len() as u64;
        if ends {
            self.pass_bytes = 0;
            self.inside = 0;
            self.lines += u64::from(counts);
        }
    }

    /// Reads from where it stands until the connection ends: with the container, or before.
    pub(super) async fn read(
        &mut self,
        pods: &Api<Pod>,
        pod: &str,
        container: &str,
        follow: bool,
        mut feed: impl FnMut(&[u8]),
    ) -> Result<(), Fault> {
        let params = LogParams {
            container: Some(container.to_owned()),
            follow,
            timestamps: true,
            since_time: self.reconnect(),
            ..LogParams::default()
        };
        let mut stream = Box::pin(pods.log_stream(pod, &params).await.map_err(Fault::from)?);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(n) => self.take(&buffer[..n], &mut feed),
                Err(e) => return Err(Fault::Away(e.to_string())),
            }
        }
    }
}
