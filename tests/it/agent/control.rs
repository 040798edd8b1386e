//! Commands: fences, conflicts, idempotency; and a socket that takes anything.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::StreamExt as _;
use proptest::{prelude::*, test_runner::TestRunner};
use switchover::{
    agent::{
        ClientError,
        protocol::{ErrorCode, Event, ProcessSpec, SlotSource},
        socket_path,
    },
    domain::ids::Epoch,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use super::{DEADLINE, E1, Host, SERVICE, refusal};

fn upstream(port: u16) -> SlotSource {
    SlotSource::Upstreams { addresses: vec![SocketAddr::from(([127, 0, 0, 1], port))] }
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_move_fenced_and_for_good() {
    let mut host = Host::new().await;
    let app = host.serving("v1", host.release("v1")).await;
    let from = host.client.status().await.unwrap().services[SERVICE].slots["v1"].instances[0].address.unwrap();
    let c = host.client.clone();
    let other = "octo-1/production/other";
    let at = c.put_service(other, Some("127.0.0.1:0".parse().unwrap()), &[]).await.unwrap().listen.unwrap();
    c.claim(other, Epoch(5)).await.unwrap();
    c.put_slot(other, "a", Epoch(5), upstream(1)).await.unwrap();
    c.switch(other, Epoch(5), None, "a").await.unwrap();
    let mut said = Vec::new();
    for (service, slot, epoch, addresses) in [
        (other, "a", 4, vec![from]),
        (other, "nobody", 5, vec![from]),
        (other, "a", 5, vec![]),
        (other, "a", 5, vec![SocketAddr::from(([127, 0, 0, 1], 0))]),
        (other, "a", 5, vec![at]),
        (SERVICE, "v1", 5, vec![from]),
    ] {
        let (code, message) = refusal(c.set_upstreams(service, slot, Epoch(epoch), addresses).await);
        said.push(format!("{code:?}: {message}"));
    }
    insta::assert_snapshot!(said.join("\n").replace(&at.to_string(), "LISTENER"), @r#"
    StaleEpoch: epoch 4 is stale: "octo-1/production/other" was claimed with 5
    NotFound: "octo-1/production/other" has no slot "nobody": put it first
    Invalid: addresses must name at least one address, each with its port
    Invalid: addresses must name at least one address, each with its port
    Invalid: LISTENER is the service's own listener
    Invalid: slot "v1" has processes of the agent's own, whose addresses it knows
    "#);
    let moved = c.set_upstreams(other, "a", Epoch(5), vec![from]).await.unwrap();
    assert_eq!(moved.source, SlotSource::Upstreams { addresses: vec![from] });
    assert_eq!(super::get(at, "/").await, super::get(app, "/").await);
    host.kill();
    host.start().await;
    assert_eq!(super::get(at, "/").await, (200, "v1".into()));
    // A worker is pointed at, and has nothing to be routed to.
    let worker = "octo-1/production/worker";
    c.put_service(worker, None, &[]).await.unwrap();
    c.put_slot(worker, "a", E1, SlotSource::Upstreams { addresses: vec![] }).await.unwrap();
    assert!(c.put_slot(worker, "b", E1, upstream(1)).await.is_err());
    c.switch(worker, E1, None, "a").await.unwrap();
    assert_eq!(c.status().await.unwrap().services[worker].active.as_deref(), Some("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_is_fenced_checked_and_idempotent() {
    let host = Host::new().await;
    let c = &host.client;
    c.put_service(SERVICE, Some("127.0.0.1:0".parse().unwrap()), &[]).await.unwrap();
    c.claim(SERVICE, Epoch(5)).await.unwrap();
    for name in ["a", "b", "c"] {
        c.put_slot(SERVICE, name, Epoch(5), upstream(1)).await.unwrap();
    }
    let mut events = c.subscribe().await.unwrap();
    let first = c.switch(SERVICE, Epoch(5), None, "a").await.unwrap();
    assert_eq!(first.previous, None);
    let moved = c.switch(SERVICE, Epoch(5), Some("a"), "b").await.unwrap();
    assert_eq!(moved.previous.as_deref(), Some("a"));
    assert_eq!(c.switch(SERVICE, Epoch(5), Some("a"), "b").await.unwrap(), moved, "said twice, done once");
    let expected = |slot: &str, at| Event::Switched { service: SERVICE.into(), slot: slot.into(), at };
    assert_eq!(events.next().await.unwrap(), expected("a", first.at));
    assert_eq!(events.next().await.unwrap(), expected("b", moved.at));
    let mut said = Vec::new();
    for (epoch, from, to) in
        [(4, Some("b"), "c"), (5, Some("a"), "c"), (5, None, "c"), (5, Some("b"), "nobody"), (4, Some("a"), "b")]
    {
        let (code, message) = refusal(c.switch(SERVICE, Epoch(epoch), from, to).await);
        said.push(format!("{code:?}: {message}"));
    }
    said.push(format!("{:?}", refusal(c.remove_slot(SERVICE, "b", Epoch(5)).await)));
    said.push(format!("{:?}", refusal(c.set_running(SERVICE, "b", Epoch(5), false).await)));
    c.set_running(SERVICE, "c", Epoch(5), false).await.unwrap();
    said.push(format!("{:?}", refusal(c.switch(SERVICE, Epoch(5), Some("b"), "c").await)));
    said.push(format!("{:?}", refusal(c.claim(SERVICE, Epoch(4)).await)));
    said.push(format!("{:?}", refusal(c.claim("other", Epoch(4)).await)));
    said.push(format!("{:?}", refusal(c.put_slot(SERVICE, "a", Epoch(5), upstream(2)).await)));
    said.push(format!("{:?}", refusal(c.wait_idle(SERVICE, "nobody", Duration::ZERO).await)));
    insta::assert_snapshot!(said.join("\n"), @r#"
    StaleEpoch: epoch 4 is stale: "octo-1/production/web" was claimed with 5
    Conflict: slot "b" is live, not slot "a"
    Conflict: slot "b" is live, not no slot
    NotFound: "octo-1/production/web" has no slot "nobody": put it first
    StaleEpoch: epoch 4 is stale: "octo-1/production/web" was claimed with 5
    (Conflict, "slot \"b\" is live: switch away from it first")
    (Conflict, "slot \"b\" is live: switch away from it first")
    (Conflict, "slot \"c\" is stopped: set it running first")
    (StaleEpoch, "epoch 4 is stale: \"octo-1/production/web\" was claimed with 5")
    (NotFound, "there is no service \"other\": put it first")
    (Conflict, "slot \"a\" exists with something else in it: remove it first")
    (NotFound, "\"octo-1/production/web\" has no slot \"nobody\"")
    "#);
    // A higher epoch that acts is a claim.
    c.switch(SERVICE, Epoch(6), Some("b"), "a").await.unwrap();
    assert_eq!(refusal(c.switch(SERVICE, Epoch(5), Some("a"), "b").await).0, ErrorCode::StaleEpoch);
    assert_eq!(host.service().await.epoch, Epoch(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_carried_out_is_said() {
    let host = Host::new().await;
    let c = &host.client;
    let web = c.put_service(SERVICE, Some("127.0.0.1:0".parse().unwrap()), &[]).await.unwrap().listen.unwrap();
    let again = c.put_service(SERVICE, Some("127.0.0.1:0".parse().unwrap()), &[]).await.unwrap();
    assert_eq!(again.listen, Some(web), "the chosen port stays");
    c.put_service("worker", None, &[]).await.unwrap();
    c.put_slot(SERVICE, "a", E1, upstream(1)).await.unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut said = Vec::new();
    let hosts = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let puts: [(&str, Option<SocketAddr>, &[&str]); 8] = [
        ("", None, &[]),
        ("a\nb", None, &[]),
        ("x", Some(taken.local_addr().unwrap()), &[]),
        ("x", Some("192.0.2.1:0".parse().unwrap()), &[]),
        ("x", Some(web), &[]),
        ("x", Some(web), &["shop.example:80"]),
        ("x", Some(web), &["*.example"]),
        (SERVICE, None, &[]),
    ];
    for (service, listen, names) in puts {
        said.push(format!("{:?}", refusal(c.put_service(service, listen, &hosts(names)).await)));
    }
    let good = host.release("v1");
    let specs: [fn(&mut ProcessSpec); 8] = [
        |s| s.argv.clear(),
        |s| s.argv = vec![String::new()],
        |s| s.replicas = 0,
        |s| s.replicas = 1_000_000,
        |s| s.cwd = "relative".into(),
        |s| s.log_dir = "logs".into(),
        |s| s.argv.push("a\0b".into()),
        |s| drop(s.env.insert("A".into(), "secret\0".into())),
    ];
    for change in specs {
        let mut spec = good.clone();
        change(&mut spec);
        said.push(format!("{:?}", refusal(c.put_slot(SERVICE, "v1", E1, SlotSource::Process(spec)).await)));
    }
    let none = SlotSource::Upstreams { addresses: vec![] };
    let own = SlotSource::Upstreams { addresses: vec![web] };
    for (service, source) in [(SERVICE, none), (SERVICE, own), (SERVICE, upstream(0)), ("worker", upstream(1))] {
        said.push(format!("{:?}", refusal(c.put_slot(service, "u", E1, source).await)));
    }
    let said = said.join("\n").replace(&web.to_string(), "LISTENER");
    insta::assert_snapshot!(said.replace(&taken.local_addr().unwrap().to_string(), "TAKEN"), @r#"
    (Invalid, "service \"\" must have 1 to 300 characters and none of control")
    (Invalid, "service \"a\\nb\" must have 1 to 300 characters and none of control")
    (Failed, "can't listen at TAKEN: Address already in use (os error 98)")
    (Failed, "can't listen at 192.0.2.1:0: Cannot assign requested address (os error 99)")
    (Conflict, "all hosts of the listener LISTENER: \"octo-1/production/web\" has that already")
    (Invalid, "host \"shop.example:80\" must be a plain host name without a port")
    (Invalid, "host \"*.example\" must be a plain host name without a port")
    (Conflict, "\"octo-1/production/web\" has slots and can't change between routed and worker: remove it")
    (Invalid, "argv is empty: name a program")
    (Invalid, "argv[0] is empty: name a program")
    (Invalid, "replicas is 0, it must be 1 to 64")
    (Invalid, "replicas is 1000000, it must be 1 to 64")
    (Invalid, "cwd relative must be an absolute path")
    (Invalid, "log_dir logs must be an absolute path")
    (Invalid, "argv holds a NUL character")
    (Invalid, "environment variable \"A\" has a name or a value that no process can get")
    (Invalid, "addresses must name at least one address, each with its port")
    (Invalid, "LISTENER is the service's own listener")
    (Invalid, "addresses must name at least one address, each with its port")
    (Invalid, "nothing is routed to a worker: it has no addresses")
    "#);
    // None of it left anything behind.
    let status = c.status().await.unwrap();
    assert_eq!(status.services.keys().collect::<Vec<_>>(), [SERVICE, "worker"]);
    assert_eq!(status.services[SERVICE].slots.keys().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_takes_anything() {
    let host = Host::new().await;
    let path = socket_path(&host.data());
    // Clients that say nothing, half a line, or never read: nobody waits for them.
    let mut open = Vec::new();
    for part in ["", "{\"op\":\"hel"] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        open.push(stream);
    }
    let mut deaf = UnixStream::connect(&path).await.unwrap();
    let flood = "{\"op\":\"status\"}\n".repeat(1_000);
    while tokio::time::timeout(Duration::from_millis(200), deaf.write_all(flood.as_bytes())).await.is_ok() {}
    host.client.hello().await.unwrap();
    let lines =
        ["garbage", "{}", "{\"op\":\"fly\"}", "{\"op\":\"claim\",\"service\":1,\"epoch\":\"secret\"}", "[]", "\u{0}"];
    let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
    let mut said = Vec::new();
    for line in lines {
        stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).await.unwrap();
        said.push(answer.trim().to_owned());
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    {"reply":"error","code":"invalid","message":"not a request: it is not JSON"}
    {"reply":"error","code":"invalid","message":"not a request: a field is missing, unknown or of the wrong type"}
    {"reply":"error","code":"invalid","message":"not a request: a field is missing, unknown or of the wrong type"}
    {"reply":"error","code":"invalid","message":"not a request: a field is missing, unknown or of the wrong type"}
    {"reply":"error","code":"invalid","message":"not a request: a field is missing, unknown or of the wrong type"}
    {"reply":"error","code":"invalid","message":"not a request: it is not JSON"}
    "#);
    // The same connection still works, and unknown fields are ignored.
    stream.write_all(b"{\"op\":\"hello\",\"new\":1}\n").await.unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).await.unwrap();
    assert!(answer.starts_with("{\"reply\":\"hello\""), "{answer}");
    for bytes in [vec![b'x'; 5 * 1024 * 1024], b"\xff\xfe\n".to_vec()] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // It may stop reading before all is written.
        let _ = stream.write_all(&bytes).await;
        let mut answer = String::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap();
        assert!(read.is_err() || answer.contains("\"code\":\"invalid\""), "{answer}");
    }
    host.client.hello().await.unwrap();
}

/// What a service should be after some commands.
#[derive(Default)]
struct Model {
    epoch: i64,
    active: Option<usize>,
    slots: BTreeMap<usize, bool>,
}

#[derive(Debug, Clone)]
enum Step {
    Claim(i64),
    Put(i64, usize),
    Remove(i64, usize),
    Run(i64, usize, bool),
    Switch(i64, Option<usize>, usize),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (epoch, slot) = (0..4_i64, 0..3_usize);
    let step = prop_oneof![
        1 => epoch.clone().prop_map(Step::Claim),
        3 => (epoch.clone(), slot.clone()).prop_map(|(e, s)| Step::Put(e, s)),
        2 => (epoch.clone(), slot.clone()).prop_map(|(e, s)| Step::Remove(e, s)),
        1 => (epoch.clone(), slot.clone(), any::<bool>()).prop_map(|(e, s, r)| Step::Run(e, s, r)),
        4 => (epoch, proptest::option::of(slot.clone()), slot).prop_map(|(e, f, t)| Step::Switch(e, f, t)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..25)
}

impl Model {
    /// The rule in words: stale is refused first; a higher epoch claims if the command is carried out; what is live
    /// can't go.
    fn take(&mut self, step: &Step) -> Result<(), ErrorCode> {
        let (Step::Claim(epoch)
        | Step::Put(epoch, _)
        | Step::Remove(epoch, _)
        | Step::Run(epoch, ..)
        | Step::Switch(epoch, ..)) = *step
        else {
            return Ok(());
        };
        if epoch < self.epoch {
            return Err(ErrorCode::StaleEpoch);
        }
        match *step {
            Step::Put(_, slot) => drop(self.slots.entry(slot).or_insert(true)),
            Step::Remove(_, slot) if self.active == Some(slot) => return Err(ErrorCode::Conflict),
            Step::Remove(_, slot) => drop(self.slots.remove(&slot)),
            Step::Run(_, slot, run) => match self.slots.get_mut(&slot) {
                None => return Err(ErrorCode::NotFound),
                Some(_) if self.active == Some(slot) && !run => return Err(ErrorCode::Conflict),
                Some(running) => *running = run,
            },
            Step::Switch(_, from, to) => match self.slots.get(&to) {
                None => return Err(ErrorCode::NotFound),
                Some(false) => return Err(ErrorCode::Conflict),
                Some(true) if self.active != Some(to) && self.active != from => return Err(ErrorCode::Conflict),
                Some(true) => self.active = Some(to),
            },
            Step::Claim(_) | Step::Restart => {}
        }
        self.epoch = epoch;
        Ok(())
    }
}

#[test]
fn any_order_of_commands_and_kills_ends_where_the_rules_say() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let host = std::cell::RefCell::new(runtime.block_on(Host::new()));
    let case = std::cell::Cell::new(0);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() });
    let done = runner.run(&steps(), |steps| {
        case.set(case.get() + 1);
        let service = format!("case-{}", case.get());
        let mut host = host.borrow_mut();
        runtime.block_on(run_case(&mut host, &service, &steps))
    });
    done.unwrap();
}

async fn run_case(host: &mut Host, service: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let before = host.client.put_service(service, listen, &[]).await.unwrap();
    let mut model = Model::default();
    let name = |slot: usize| format!("s{slot}");
    for step in steps {
        let c = &host.client;
        let expected = model.take(step);
        let done: Result<(), ClientError> = match *step {
            Step::Claim(epoch) => c.claim(service, Epoch(epoch)).await,
            Step::Put(epoch, slot) => c.put_slot(service, &name(slot), Epoch(epoch), upstream(1)).await.map(drop),
            Step::Remove(epoch, slot) => c.remove_slot(service, &name(slot), Epoch(epoch)).await,
            Step::Run(epoch, slot, run) => c.set_running(service, &name(slot), Epoch(epoch), run).await.map(drop),
            Step::Switch(epoch, from, to) => {
                c.switch(service, Epoch(epoch), from.map(name).as_deref(), &name(to)).await.map(drop)
            }
            Step::Restart => {
                host.kill();
                host.start().await;
                Ok(())
            }
        };
        let found = match done {
            Ok(()) => Ok(()),
            Err(ClientError::Refused { code, .. }) => Err(code),
            Err(other) => panic!("{other}"),
        };
        prop_assert_eq!(found, expected, "{:?} of {:?}", step, steps);
        let status = host.client.status().await.unwrap().services.remove(service).unwrap();
        prop_assert_eq!(status.epoch.0, model.epoch);
        prop_assert_eq!(status.active, model.active.map(name));
        prop_assert_eq!(status.listen, before.listen);
        let slots: BTreeMap<String, bool> = status.slots.into_iter().map(|(n, s)| (n, s.running)).collect();
        prop_assert_eq!(slots, model.slots.iter().map(|(s, r)| (name(*s), *r)).collect());
    }
    host.client.remove_service(service, Epoch(i64::MAX)).await.unwrap();
    Ok(())
}
