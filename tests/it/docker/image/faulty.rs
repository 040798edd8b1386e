//! A registry's door that misbehaves on demand: it stands before a real one and answers some requests itself.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

/// What is answered instead of the registry.
#[derive(Clone, Debug)]
pub struct Fault {
    /// `PATCH`, `PUT`, …
    pub method: &'static str,
    /// Part of the path.
    pub path: &'static str,
    pub status: u16,
    pub body: &'static str,
    /// How often; then the registry answers again.
    pub times: usize,
}

type Plan = Arc<Mutex<Vec<Fault>>>;

pub struct Faulty {
    /// Host and port.
    pub host: String,
    plan: Plan,
    seen: Arc<Mutex<Vec<String>>>,
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
        let host = listener.local_addr().unwrap().to_string();
        let (plan, seen) = (Plan::default(), Arc::default());
        let (upstream, shared, log) = (upstream.to_owned(), plan.clone(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (client, upstream, plan, log) =
                    (client.clone(), upstream.clone(), shared.clone(), Arc::clone(&log));
                open.spawn(async move {
                    let service = service_fn(move |request| {
                        let (client, upstream) = (client.clone(), upstream.clone());
                        let (plan, log) = (plan.clone(), Arc::clone(&log));
                        async move { Ok::<_, Infallible>(answer(request, &client, &upstream, &plan, &log).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { host, plan, seen, task }
    }

    pub fn fault(&self, fault: Fault) {
        self.plan.lock().unwrap().push(fault);
    }

    /// What was asked, as `METHOD path status`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    client: &reqwest::Client,
    upstream: &str,
    plan: &Plan,
    log: &Mutex<Vec<String>>,
) -> Response<Full<Bytes>> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let fault = {
        let mut plan = plan.lock().unwrap();
        let fits = |f: &Fault| f.method == method.as_str() && uri.path().contains(f.path) && f.times > 0;
        plan.iter_mut().find(|f| fits(f)).map(|f| {
            f.times -= 1;
            f.clone()
        })
    };
    let note = |status: u16| log.lock().unwrap().push(format!("{method} {} {status}", uri.path()));
    let headers = request.headers().clone();
    if let Some(fault) = fault {
        // In the middle of a blob: a part of it was taken in.
        let mut body = request.into_body();
        let _ = body.frame().await;
        note(fault.status);
        return Response::builder()
            .status(fault.status)
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::from(fault.body))
            .unwrap();
    }
    let Ok(body) = request.into_body().collect().await else {
        return Response::builder().status(400).body(Full::default()).unwrap();
    };
    // With the host that was asked for: the registry builds its addresses from it.
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let sent = client
        .request(method.clone(), format!("http://{upstream}{path}"))
        .headers(headers)
        .body(body.to_bytes())
        .send();
    match sent.await {
        Ok(answer) => {
            note(answer.status().as_u16());
            let mut response = Response::builder().status(answer.status());
            for (name, value) in answer.headers().iter().filter(|(n, _)| *n != "transfer-encoding") {
                response = response.header(name, value);
            }
            response.body(Full::from(answer.bytes().await.unwrap())).unwrap()
        }
        Err(e) => Response::builder().status(502).body(Full::from(e.to_string())).unwrap(),
    }
}
