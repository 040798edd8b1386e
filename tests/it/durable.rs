//! Invariant 1 on the real binary: what was answered 202 is there, after `kill -9` and on a full disk.
//!
//! A killed process loses nothing that the kernel holds already: this shows that no answer precedes its commit, not
//! that the disk keeps what was synced (that is what `synchronous=FULL` asks of it).

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use secrecy::SecretString;
use switchover::{agent, demo::github::AppKey, domain::ids::DeliveryId, github::webhook::sign, store::Store};
use tokio::sync::{Notify, watch};

const SECRET: &str = "It's a Secret to Everybody";
/// For a machine with two cores where everything else compiles.
const DEADLINE: Duration = Duration::from_secs(60);

/// `switchover serve` as its own process, with its folder; both end with it.
struct Served {
    listen: SocketAddr,
    data: PathBuf,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Served {
    /// Nothing runs yet. `data` is the data folder; default: one in the temporary folder.
    fn new(data: Option<PathBuf>) -> Self {
        let folder = tempfile::Builder::new().prefix("switchover-durable-").tempdir().expect("a folder");
        let data = data.unwrap_or_else(|| folder.path().join("data"));
        let key = folder.path().join("app.pem");
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&key).expect("a key file");
        file.write_all(AppKey::generate().expect("a key").private_pem.as_bytes()).expect("a written key");
        Self { listen: address_of_our_own(), data, folder, child: None }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// Starts the server and waits until it is ready and its agent answers.
    async fn start(&mut self) -> Client {
        let log = File::options().create(true).append(true).open(self.folder.path().join("server.log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_switchover"))
            .arg("serve")
            .current_dir(self.folder.path())
            .env("SWITCHOVER_LISTEN", self.listen.to_string())
            .env("SWITCHOVER_DATA", &self.data)
            // A closed port: nothing here needs GitHub.
            .env("SWITCHOVER_GITHUB_URL", "http://127.0.0.1:9")
            .env("SWITCHOVER_APP_ID", "1")
            .env("SWITCHOVER_PRIVATE_KEY_FILE", self.folder.path().join("app.pem"))
            .env("SWITCHOVER_WEBHOOK_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        self.child = Some(child);
        let http = Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
        let agent = agent::Client::new(agent::socket_path(&self.data.join("agent")));
        let deadline = Instant::now() + DEADLINE;
        while self.get(&http, "readyz").await != 200 || agent.hello().await.is_err() {
            assert!(Instant::now() < deadline, "the server does not come up:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        http
    }

    /// The status of a GET; 0 without an answer.
    async fn get(&self, http: &Client, path: &str) -> u16 {
        http.get(format!("http://{}/{path}", self.listen)).send().await.map_or(0, |r| r.status().as_u16())
    }

    /// SIGKILL; returns when the process is gone.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
        // The agent outlives the server by design, so it has to be told.
        let socket = agent::socket_path(&self.data.join("agent"));
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|r| r.block_on(async { agent::Client::new(socket).shutdown(true).await.is_ok() }))
        })
        .join();
    }
}

/// A port on a loopback address of our own: what is free there stays free while the server is down, as nobody else
/// takes ports on it.
fn address_of_our_own() -> SocketAddr {
    let random = uuid::Uuid::new_v4().into_bytes();
    let ip = [127, 1 + random[0] % 250, random[1], 1 + random[2] % 250];
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::from(ip), 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

/// Sends a ping, which GitHub is not asked about. None: no answer came.
async fn send(http: &Client, listen: SocketAddr, guid: &str, body: String) -> Option<u16> {
    let signature = sign(&SecretString::from(SECRET), body.as_bytes());
    let request = http
        .post(format!("http://{listen}/webhooks/github"))
        .header("X-GitHub-Event", "ping")
        .header("X-GitHub-Delivery", guid)
        .header("X-Hub-Signature-256", signature)
        .body(body);
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    // Read to its end, so that the connection is used again.
    answer.bytes().await.ok()?;
    Some(status)
}

fn body(guid: &str) -> String {
    format!(r#"{{"zen":"Keep it logically awesome.","hook_id":1,"guid":"{guid}"}}"#)
}

/// How often each id was answered 202.
type Acknowledged = BTreeMap<String, usize>;

/// Each acknowledged id is stored with its own body.
async fn assert_stored(data: &Path, acknowledged: &Acknowledged, body: impl Fn(&str) -> String) -> usize {
    let store = Store::open(&data.join("switchover.db")).await.expect("a readable database");
    let mut lost = Vec::new();
    for guid in acknowledged.keys() {
        let id = DeliveryId::new(guid.clone()).expect("an id");
        match store.delivery(&id).await.expect("readable") {
            Some(stored) => assert_eq!(stored.body, body(guid).as_bytes(), "{guid} holds another body"),
            None => lost.push(guid),
        }
    }
    assert!(lost.is_empty(), "{} of {} acknowledged are lost: {lost:?}", lost.len(), acknowledged.len());
    let counts = store.delivery_counts().await.expect("readable");
    store.close().await;
    counts.iter().map(|(_, n)| usize::try_from(*n).expect("a count")).sum()
}

const ALL: usize = 10_000;
const SENDERS: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_webhook_outlives_a_kill() {
    let mut served = Served::new(None);
    let first = served.start().await;
    assert!(!served.log().contains("actix"), "the library's own news are no news:\n{}", served.log());
    let listen = served.listen;
    // The client of the server that runs now; a sender whose request failed waits for the next one.
    let (current, clients) = watch::channel((0_usize, first));
    let (next, acknowledged, half) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let began = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (mut clients, next) = (clients.clone(), next.clone());
            let (acknowledged, half) = (acknowledged.clone(), half.clone());
            tokio::spawn(async move {
                let (mut mine, mut unanswered) = (Acknowledged::new(), 0);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= ALL {
                        return (mine, unanswered);
                    }
                    let guid = format!("{n:08x}-durable");
                    loop {
                        let (generation, http) = clients.borrow_and_update().clone();
                        match send(&http, listen, &guid, body(&guid)).await {
                            Some(202) => break,
                            Some(other) => panic!("{guid} was answered {other}"),
                            None => {
                                assert_eq!(generation, 0, "{guid} got no answer from a server that was not killed");
                                unanswered += 1;
                                clients.wait_for(|(g, _)| *g > generation).await.expect("a server comes back");
                            }
                        }
                    }
                    *mine.entry(guid).or_default() += 1;
                    if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == ALL / 2 {
                        half.notify_one();
                    }
                }
            })
        })
        .collect();

    tokio::time::timeout(DEADLINE * 2, half.notified()).await.expect("half are acknowledged");
    served.kill();
    let at_kill = acknowledged.load(Ordering::Relaxed);
    let http = served.start().await;
    current.send((1, http.clone())).expect("the senders wait");
    let (mut all, mut unanswered) = (Acknowledged::new(), 0);
    for sender in senders {
        let (mine, without) = tokio::time::timeout(DEADLINE * 2, sender).await.expect("in time").expect("a sender");
        all.extend(mine);
        unanswered += without;
    }
    let took = began.elapsed();
    // GitHub redelivers what it holds for failed: some from before the kill, some from after it.
    let again: Vec<String> = all.keys().step_by(20).cloned().collect();
    for guid in &again {
        assert_eq!(send(&http, listen, guid, body(guid)).await, Some(202), "{guid} again");
        *all.entry(guid.clone()).or_default() += 1;
    }
    // No gentle end: what is acknowledged last must be there too.
    served.kill();

    assert!(at_kill < ALL, "the kill came in the middle");
    assert!(unanswered > 0, "the kill cut nobody off");
    assert_eq!(all.len(), ALL);
    let stored = assert_stored(&served.data, &all, body).await;
    assert_eq!(stored, ALL, "nothing is there twice");
    let twice = all.values().filter(|n| **n > 1).count();
    println!(
        "{ALL} webhooks at {SENDERS} connections in {:.1} s with a restart; {at_kill} acknowledged at the kill, \
         {unanswered} cut off and sent again, {twice} acknowledged twice; stored {stored}, lost 0, doubled 0",
        took.as_secs_f64()
    );
}

/// A file system of 3 MB; it goes with this.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::Builder::new().prefix("switchover-small-").tempdir().expect("a folder");
        let flags = nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV;
        nix::mount::mount(Some("tmpfs"), folder.path(), Some("tmpfs"), flags, Some("size=3m,mode=0700"))
            .expect("a small file system");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Of about 20 KB, so that what SQLite has reserved is used up soon.
fn large_body(guid: &str) -> String {
    format!(r#"{{"zen":"{}","hook_id":1,"guid":"{guid}"}}"#, "Keep it logically awesome. ".repeat(750))
}

fn body_of(guid: &str) -> String {
    if guid.starts_with("large") { large_body(guid) } else { body(guid) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_never_acknowledged() {
    if !nix::unistd::geteuid().is_root() {
        println!("left out: full_disk: needs root to mount a small file system");
        return;
    }
    // Dropped last: the server ends before its disk goes.
    let disk = SmallDisk::mount();
    let mut served = Served::new(Some(disk.0.path().join("data")));
    let http = served.start().await;
    let listen = served.listen;
    let mut acknowledged = Acknowledged::new();
    assert_eq!(send(&http, listen, "before", body("before")).await, Some(202));
    acknowledged.insert("before".into(), 1);

    let filler = disk.0.path().join("filler");
    let mut file = File::create(&filler).expect("a filler");
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    // First large, then small: until not even a small one fits into what SQLite holds already.
    let mut refused = Vec::new();
    for kind in ["large", "small"] {
        let mut in_a_row = 0;
        for n in 0..2000 {
            let guid = format!("{kind}-{n}");
            match send(&http, listen, &guid, body_of(&guid)).await {
                Some(202) => {
                    in_a_row = 0;
                    acknowledged.insert(guid, 1);
                }
                Some(503) => {
                    in_a_row += 1;
                    refused.push(guid);
                }
                other => panic!("{guid} was answered {other:?}:\n{}", served.log()),
            }
            if in_a_row == 5 {
                break;
            }
        }
        assert_eq!(in_a_row, 5, "a full disk takes {kind} webhooks for ever");
    }
    let (mut ready, mut asked) = (200, 0);
    while ready == 200 && asked < 500 {
        ready = served.get(&http, "readyz").await;
        asked += 1;
    }
    assert_eq!(ready, 503, "/readyz tells it:\n{}", served.log());
    assert_eq!(served.get(&http, "healthz").await, 200, "the process is well");
    let storm = futures_util::future::join_all((0..100).map(|n| {
        let http = http.clone();
        async move {
            let guid = format!("large-storm-{n}");
            (send(&http, listen, &guid, body_of(&guid)).await, guid)
        }
    }))
    .await;
    for (status, guid) in storm {
        assert_eq!(status, Some(503), "{guid} on a full disk");
        refused.push(guid);
    }

    std::fs::remove_file(&filler).expect("space returns");
    let deadline = Instant::now() + DEADLINE;
    while served.get(&http, "readyz").await != 200 {
        assert!(Instant::now() < deadline, "it does not heal:\n{}", served.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Only some of the large: all of them would fill the disk again.
    let again: Vec<&String> = refused.iter().step_by(refused.len().div_ceil(20)).collect();
    for guid in &again {
        assert_eq!(send(&http, listen, guid, body_of(guid)).await, Some(202), "{guid} again:\n{}", served.log());
        acknowledged.insert((*guid).clone(), 1);
    }
    served.kill();
    let stored = assert_stored(&served.data, &acknowledged, body_of).await;
    assert_eq!(stored, acknowledged.len(), "what was refused is not there");
    println!(
        "full disk: {} refused with 503, of them {} sent again and taken when space was back; {} acknowledged, stored \
         {stored}, lost 0",
        refused.len(),
        again.len(),
        acknowledged.len()
    );
}
