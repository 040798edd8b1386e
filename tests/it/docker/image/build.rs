//! From a workspace to a digest in the registry.

use std::time::Duration;

use super::{Order, access, place, repository, workspace};

use switchover::{
    domain::ids::Sha,
    image::{Blame, ImageError},
    infer::docker::Generated,
};

const SIMPLE: &str = "FROM busybox\nWORKDIR /app\nCOPY hello.txt .\nCMD [\"cat\", \"hello.txt\"]\n";

#[tokio::test]
async fn it_is_built_pushed_and_known_by_digest() {
    let Some(place) = place::place("it_is_built_pushed_and_known_by_digest").await else { return };
    let images = place.images(vec![access(&place.registry, "", "")]);
    let folder = workspace(&[("Dockerfile", SIMPLE), ("hello.txt", "hello\n")]);
    let mut order = Order::new(&repository(&place.registry));
    let (built, said) = order.run(&images, folder.path()).await;
    let built = built.unwrap_or_else(|e| panic!("{e}\n{said:#?}"));
    assert_eq!(built.reference, format!("{}@{}", order.repository, built.digest));
    assert_eq!((built.dockerfile.as_str(), built.generated), ("Dockerfile", false));
    assert!(built.size > 1_000_000 && built.context > 0, "{built:?}");
    assert!(said.iter().any(|l| l.contains("COPY hello.txt .")), "{said:#?}");

    // The registry has it under the commit, with the labels.
    let found = images.find_by_tag(&order.repository, order.commit.as_str()).await.unwrap();
    assert_eq!(found.as_ref(), Some(&built.digest));
    assert!(images.exists(&order.repository, &built.digest).await.unwrap());
    let inspected = place.api().inspect_image(&built.reference).await.unwrap();
    let labels = inspected.config.unwrap().labels.unwrap();
    assert_eq!(labels["org.opencontainers.image.source"], "https://github.example/acme/shop");
    assert_eq!(labels["org.opencontainers.image.revision"], order.commit.as_str());
    assert!(labels["org.opencontainers.image.created"].parse::<jiff::Timestamp>().is_ok());

    // The next commit: the same layers are neither built nor sent again.
    order.commit = Sha::new("5".repeat(40)).unwrap();
    let (again, said) = order.run(&images, folder.path()).await;
    assert_eq!(again.unwrap().layers.0, 0, "{said:#?}");
    assert!(said.iter().any(|l| l.ends_with("CACHED")), "{said:#?}");
    // Unless that is wanted.
    order.fresh = true;
    let (fresh, said) = order.run(&images, folder.path()).await;
    fresh.unwrap();
    let copying = said.iter().find_map(|l| l.strip_suffix(" [3/3] COPY hello.txt .")).unwrap();
    assert!(!said.contains(&format!("{copying} CACHED")), "{said:#?}");
}

#[tokio::test]
async fn the_context_is_what_dockerignore_leaves() {
    let Some(place) = place::place("the_context_is_what_dockerignore_leaves").await else { return };
    let images = place.images(vec![access(&place.registry, "", "")]);
    let all = "FROM busybox\nCOPY . /all\nRUN cd /all && find . ! -type d | sort | sed 's/^/found /'\n";
    let files = [
        ("app/docker/Dockerfile", all),
        ("app/.dockerignore", "**/*.log\nsecret\n!secret/but-not-this\n/docs\n"),
        ("app/a.txt", ""),
        ("app/a.log", ""),
        ("app/deep/down/b.log", ""),
        ("app/secret/key", ""),
        ("app/secret/but-not-this", ""),
        ("app/docs/x", ""),
        ("app/sub/docs/x", ""),
        ("app/inside", "-> a.txt"),
        ("app/outside", "-> ../../../../etc/hostname"),
        ("app/absolute", "-> /etc/hostname"),
        ("app/größe ü.txt", ""),
        ("outside.txt", ""),
    ];
    let folder = workspace(&files);
    let mut order = Order::new(&repository(&place.registry));
    order.plan.dockerfile = Some("app/docker/Dockerfile".into());
    order.plan.context = "app".into();
    let found = |said: &[String]| -> String {
        said.iter().filter_map(|l| l.split_once(" found ")).map(|(_, l)| format!("{l}\n")).collect()
    };
    let (built, said) = order.run(&images, folder.path()).await;
    built.unwrap_or_else(|e| panic!("{e}\n{said:#?}"));
    insta::assert_snapshot!(found(&said), @r"
    ./.dockerignore
    ./a.txt
    ./absolute
    ./docker/Dockerfile
    ./größe ü.txt
    ./inside
    ./outside
    ./secret/but-not-this
    ./sub/docs/x
    ");

    // An ignore file of the Dockerfile's own goes first.
    std::fs::write(folder.path().join("app/docker/Dockerfile.dockerignore"), "*\n!a.*\n").unwrap();
    let (built, said) = order.run(&images, folder.path()).await;
    built.unwrap_or_else(|e| panic!("{e}\n{said:#?}"));
    insta::assert_snapshot!(found(&said), @r"
    ./a.log
    ./a.txt
    ./docker/Dockerfile
    ");

    // A Dockerfile outside of the context comes along.
    std::fs::write(folder.path().join("Dockerfile.all"), all).unwrap();
    order.plan.dockerfile = Some("Dockerfile.all".into());
    order.plan.context = "app/sub".into();
    let (built, said) = order.run(&images, folder.path()).await;
    built.unwrap_or_else(|e| panic!("{e}\n{said:#?}"));
    insta::assert_snapshot!(found(&said), @r"
    ./.switchover.Dockerfile
    ./docs/x
    ");

    // One that was made up has its own patterns.
    order.plan.dockerfile = None;
    order.plan.generated =
        Some(Generated { name: "app/Dockerfile".into(), text: all.into(), ignore: "deep\nsecret\n".into() });
    std::fs::remove_file(folder.path().join("app/.dockerignore")).unwrap();
    order.plan.context = "app".into();
    let (built, said) = order.run(&images, folder.path()).await;
    assert!(built.unwrap_or_else(|e| panic!("{e}\n{said:#?}")).generated);
    insta::assert_snapshot!(found(&said), @r"
    ./.switchover.Dockerfile
    ./a.log
    ./a.txt
    ./absolute
    ./docker/Dockerfile
    ./docker/Dockerfile.dockerignore
    ./docs/x
    ./größe ü.txt
    ./inside
    ./outside
    ./sub/docs/x
    ");
}

#[tokio::test]
async fn a_failing_instruction_is_named_with_its_line() {
    let Some(place) = place::place("a_failing_instruction_is_named_with_its_line").await else { return };
    let images = place.images(vec![access(&place.registry, "", "")]);
    let order = Order::new(&repository(&place.registry));
    let mut all = String::new();
    for text in [
        "FROM busybox\n\n# a comment\nRUN echo fine\nRUN echo one && \\\n  # in between\n  echo two && exit 3\nRUN echo never\n",
        "FROM busybox AS build\nRUN echo fine\nFROM busybox\nCOPY --from=build /bin/sh /x\nCOPY missing.txt /app/\n",
        "ARG BASE=busybox\nFROM ${BASE} AS deps\nRUN false\nFROM deps\nRUN true\n",
        "FROM busybox\r\nRUN echo crlf\r\nRUN exit 7\r\n",
        "FROM busybox\nRUNN echo\n",
        "FROM busybox\nCOPY\n",
        "FROM\n",
        "",
        "# nothing\n",
        "RUN echo before from\n",
        "FROM $NOTHING\n",
        "FROM Bad_Name!\n",
        "FROM busybox\nCOPY --from=nowhere/at-all:1 / /\n",
        "FROM busybox:no-such-tag\n",
        "FROM busybox\nCOPY ../../etc/passwd /\n",
        "FROM busybox\nCOPY out /\n",
        "FROM busybox\nUSER nobody\nRUN echo no > /bin/sh\n",
        "FROM busybox\nRUN exit 137\n",
    ] {
        let folder = workspace(&[("Dockerfile", text), ("out", "-> ../../../../../../etc/passwd")]);
        let (built, said) = order.run(&images, folder.path()).await;
        let error = built.expect_err(text);
        assert_eq!(error.blame(), Blame::Author, "{error}\n{said:#?}");
        // The engine's own folder differs.
        let error = error.to_string();
        let error = error.split(" failed to walk ").next().unwrap_or_default();
        all.push_str(&format!("{error}\n"));
    }
    insta::assert_snapshot!(all, @r#"
    Dockerfile line 5 (`RUN echo one &&   echo two && exit 3`): exit code 3
        one
        two
    Dockerfile line 5 (`COPY missing.txt /app/`): failed to compute cache key: "/missing.txt" not found: not found. Does the `build` step make it there, and does .dockerignore leave it in?
    Dockerfile line 3 (`RUN false`): exit code 1
    Dockerfile line 3 (`RUN exit 7`): exit code 7
    Dockerfile line 2 (`RUNN echo`): dockerfile parse error line 2: unknown instruction: RUNN
    Dockerfile line 2 (`COPY`): dockerfile parse error line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined
    Dockerfile line 1 (`FROM`): dockerfile parse error line 1: FROM requires either one or three arguments
    Dockerfile: the Dockerfile cannot be empty
    Dockerfile: file with no instructions
    Dockerfile: no build stage in current context
    Dockerfile line 1 (`FROM $NOTHING`): its variable has no value: give the ARG before it a default
    Dockerfile line 1 (`FROM Bad_Name!`): "Bad_Name!" is not an image's name: its path has small letters, digits, dots, dashes and underscores
    Dockerfile line 2: the image nowhere/at-all:1 is not there. Docker Hub has no such image or repository, or shows it to nobody without a password (404). Look at its name; a private one needs [registries."docker.io"] of switchover.toml. It said: manifest unknown: manifest unknown
    Dockerfile line 1: the image busybox:no-such-tag is not there. Docker Hub has no such image or repository, or shows it to nobody without a password (404). Look at its name; a private one needs [registries."docker.io"] of switchover.toml. It said: manifest unknown: manifest unknown
    Dockerfile line 2 (`COPY ../../etc/passwd /`): failed to compute cache key:
    Dockerfile line 2 (`COPY out /`): failed to compute cache key: "/etc/passwd" not found: not found. Does the `build` step make it there, and does .dockerignore leave it in?
    Dockerfile line 3 (`RUN echo no > /bin/sh`): exit code 1
        /bin/sh: can't create /bin/sh: Permission denied
    Dockerfile line 2 (`RUN exit 137`): exit code 137: it was killed, as a rule because the memory was not enough
    "#);
}

#[tokio::test]
async fn what_leads_out_of_the_repository_is_refused() {
    let Some(place) = place::place("what_leads_out_of_the_repository_is_refused").await else { return };
    let images = place.images(vec![access(&place.registry, "", "")]);
    let folder = workspace(&[
        ("Dockerfile", SIMPLE),
        ("hello.txt", ""),
        ("etc", "-> /etc"),
        ("linked", "-> /etc/passwd"),
        ("pipes/Dockerfile", SIMPLE),
        ("ignored/Dockerfile", SIMPLE),
        ("ignored/.dockerignore", "-> /etc/passwd"),
        ("wrong/Dockerfile", SIMPLE),
        ("wrong/.dockerignore", "# fine\na[\n"),
        ("bang/Dockerfile", SIMPLE),
        ("bang/.dockerignore", "!\n"),
    ]);
    let pipe = folder.path().join("pipes/hello.txt");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(folder.path().join("large"), vec![b'#'; 2 << 20]).unwrap();
    let mut order = Order::new(&repository(&place.registry));
    let mut all = String::new();
    for (dockerfile, context) in [
        ("../Dockerfile", ""),
        ("/etc/passwd", ""),
        ("linked", ""),
        ("none", ""),
        ("pipes", ""),
        ("large", ""),
        ("Dockerfile", "etc"),
        ("Dockerfile", ".."),
        ("Dockerfile", "none"),
        ("Dockerfile", "hello.txt"),
        ("ignored/Dockerfile", "ignored"),
        ("wrong/Dockerfile", "wrong"),
        ("bang/Dockerfile", "bang"),
        ("pipes/Dockerfile", "pipes"),
    ] {
        order.plan.dockerfile = Some(dockerfile.into());
        order.plan.context = context.into();
        let (built, said) = order.run(&images, folder.path()).await;
        let error = built.expect_err(dockerfile);
        assert_eq!(error.blame(), Blame::Author, "{error}\n{said:#?}");
        all.push_str(&format!("{error}\n"));
    }
    insta::assert_snapshot!(all, @r#"
    ../Dockerfile is not there
    /etc/passwd leads out of the repository, which an image can't be built from
    linked leads out of the repository, which an image can't be built from
    none is not there
    pipes is no file
    large is larger than 1 MiB
    etc leads out of the repository, which an image can't be built from
    .. leads out of the repository, which an image can't be built from
    none is not there
    hello.txt is no folder, and the build context must be one
    .dockerignore leads out of the repository
    .dockerignore line 2: a `[` is not closed
    .dockerignore line 1: `!` needs a pattern behind it
    pipes/Dockerfile line 3 (`COPY hello.txt .`): failed to compute cache key: "/hello.txt" not found: not found. Does the `build` step make it there, and does .dockerignore leave it in?
    "#);
}

#[tokio::test]
async fn it_ends_when_nobody_wants_it_or_time_is_up() {
    let Some(place) = place::place("it_ends_when_nobody_wants_it_or_time_is_up").await else { return };
    let images = place.images(vec![access(&place.registry, "", "")]);
    let marker = format!("98{}", std::process::id());
    let text = format!("FROM busybox\nRUN echo begun; sleep {marker}\n");
    let folder = workspace(&[("Dockerfile", &text)]);
    let mut order = Order::new(&repository(&place.registry));
    let sleeping = || {
        let all =
            std::fs::read_dir("/proc").unwrap().filter_map(|e| std::fs::read(e.ok()?.path().join("cmdline")).ok());
        all.filter(|c| String::from_utf8_lossy(c).contains(&format!("sleep\0{marker}"))).count()
    };
    let until = async |wanted: usize| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while sleeping() != wanted {
            assert!(tokio::time::Instant::now() < deadline, "{} sleep, not {wanted}", sleeping());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let stop = async {
        until(1).await;
        order.cancel.cancel();
    };
    let ((ended, _), ()) = tokio::join!(order.run(&images, folder.path()), stop);
    assert_eq!(ended.map(|b| b.reference), Err(ImageError::Cancelled));
    until(0).await;

    order.cancel = tokio_util::sync::CancellationToken::new();
    order.limit = Duration::from_secs(3);
    let (ended, _) = order.run(&images, folder.path()).await;
    let ended = ended.expect_err("it sleeps for hours");
    assert_eq!(ended.to_string(), "building and pushing the image took longer than 1 minutes");
    until(0).await;
}

#[tokio::test]
async fn build_arguments_choose_the_base_and_stages_that_are_not_needed_cost_nothing() {
    let Some(place) = place::place("build_arguments_choose_the_base_and_stages_that_are_not_needed_cost_nothing").await
    else {
        return;
    };
    let images = place.images(vec![access(&place.registry, "", "")]);
    let text = "ARG BASE=nowhere/at-all\nFROM nowhere/at-all:2 AS unused\nFROM ${BASE}\nARG WORD=default\nRUN echo \"word: $WORD\"\n";
    let folder = workspace(&[("Dockerfile", text)]);
    let mut order = Order::new(&repository(&place.registry));
    order.fresh = true;
    order.args = [("BASE", "busybox"), ("WORD", "given")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let (built, said) = order.run(&images, folder.path()).await;
    built.unwrap_or_else(|e| panic!("{e}\n{said:#?}"));
    assert!(said.iter().any(|l| l.ends_with("word: given")), "{said:#?}");
}
