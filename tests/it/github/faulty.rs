//! A wire that breaks: it stands before a server and cuts answers on demand.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What becomes of the answer to the next request of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server does its work; the answer never comes.
    Lost,
    /// The server does its work; half of the answer's body comes.
    Half,
}

type Plan = Arc<Mutex<VecDeque<(String, Cut)>>>;

pub struct Faulty {
    pub url: String,
    plan: Plan,
    task: JoinHandle<()>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Faulty {
    pub async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let plan = Plan::default();
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let shared = plan.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, upstream.clone(), shared.clone()));
            }
        });
        Self { url, plan, task }
    }

    /// The next request whose first line begins so (`POST /repos`) meets this.
    pub fn cut(&self, begins: &str, cut: Cut) {
        self.plan.lock().unwrap().push_back((begins.to_owned(), cut));
    }

    /// What was planned and has not happened.
    pub fn left(&self) -> usize {
        self.plan.lock().unwrap().len()
    }
}

/// One request on each connection.
async fn serve(mut client: TcpStream, upstream: String, plan: Plan) -> Option<()> {
    let request = read_message(&mut client).await?;
    let head = String::from_utf8_lossy(&request).into_owned();
    let cut = {
        let mut plan = plan.lock().unwrap();
        let at = plan.iter().position(|(begins, _)| head.starts_with(begins.as_str()));
        at.and_then(|at| plan.remove(at)).map(|(_, cut)| cut)
    };
    let mut server = TcpStream::connect(&upstream).await.ok()?;
    server.write_all(&request).await.ok()?;
    let answer = read_message(&mut server).await?;
    match cut {
        Some(Cut::Lost) => {}
        Some(Cut::Half) => {
            let body = body_start(&answer)?;
            client.write_all(&answer[..body + (answer.len() - body) / 2]).await.ok()?;
        }
        None => client.write_all(&answer).await.ok()?,
    }
    client.shutdown().await.ok()
}

fn body_start(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

async fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        if let Some(start) = body_start(&message) {
            let head = String::from_utf8_lossy(&message[..start]).to_ascii_lowercase();
            let length: usize = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length:"))
                .map_or(0, |value| value.trim().parse().unwrap());
            if message.len() >= start + length {
                return Some(message);
            }
        }
        if stream.read_buf(&mut message).await.ok()? == 0 {
            return None;
        }
    }
}
