//! Dockerfiles as BuildKit reads them.

use std::collections::BTreeMap;

use switchover::infer::dockerfile::{Dockerfile, expand};

/// All that is read out of a Dockerfile.
fn read(text: &str) -> String {
    let dockerfile = Dockerfile::read(text, &BTreeMap::new());
    let list = |all: Vec<String>| all.join(", ");
    format!(
        "instructions {}; images {}; copies {}; ports {}; final {:?}",
        list(dockerfile.instructions.iter().map(|i| format!("{}@{}", i.keyword, i.line)).collect()),
        list(dockerfile.images().into_iter().map(|(line, name)| format!("{name}@{line}")).collect()),
        list(dockerfile.copied().into_iter().map(|c| format!("{}@{}", c.sources.join(" "), c.line)).collect()),
        list(dockerfile.ports().into_iter().map(|(line, port)| format!("{port}@{line}")).collect()),
        dockerfile.final_base().unwrap_or_default(),
    )
}

#[test]
fn dockerfiles_are_read_as_buildkit_reads_them() {
    let cases = [
        "FROM a\nCOPY x y /z\n",
        "\u{FEFF}# syntax=docker/dockerfile:1\n# escape=`\nFROM a\r\nRUN one `\r\n  two\r\nCOPY [\"a b\", \"c\", \"/d\"]\r\n",
        "# a comment\n# escape=`\nFROM a\nRUN x `\nCOPY y /\n",
        "from a as One\nrun x \\\n# comment\n\n   && y\nFROM one\nCOPY --chown=1:1 --from=one /x /y\nCOPY --from=0 /x /y\nCOPY --from=b:1 /x /y\nexpose 1\n",
        "FROM a\nRUN <<EOF\nFROM nothing\nEXPOSE 1\nEOF\nCOPY <<-'X' <<Y /z/\n\tEXPOSE 2\n\tX\nEXPOSE 3\nY\nEXPOSE 4\n",
        "FROM a\nRUN <<EOF\nnever closed\nEXPOSE 1\n",
        "ARG V=1\nARG R=${REG:-docker.io}/x\nFROM ${R}/y:${V}\nARG V\nEXPOSE 80${V}\n",
        "FROM --platform=$BUILDPLATFORM a AS x\nFROM b\nRUN --mount=type=bind,from=c,target=/c --mount=type=cache,target=/d true\n",
        "FROM a AS unused\nFROM scratch\nADD https://x.example/y git@host:z local.tar /\n",
        "ENV A=1\nFROM x$A$B\nENV A=\"two words\" B='q' C\\ D=e\nENV old style value\nEXPOSE $A\n",
        "",
        "FROM",
        "FROM a AS a\nFROM a\n",
        "FROM b\nFROM b AS c\nFROM 0\nCOPY --from=7 / /\n",
        "RUN \\",
        "FROM a\nCOPY\nADD x\nEXPOSE\nARG\nENV\nONBUILD COPY x y\nHEALTHCHECK NONE\n日本 x\n",
    ];
    let all: Vec<String> = cases.iter().map(|text| read(text)).collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    instructions FROM@1, COPY@2; images a@1; copies x y@2; ports ; final "a"
    instructions FROM@3, RUN@4, COPY@6; images docker/dockerfile:1@1, a@3; copies a b c@6; ports ; final "a"
    instructions FROM@3, RUN@4, COPY@5; images a@3; copies y@5; ports ; final "a"
    instructions FROM@1, RUN@2, FROM@6, COPY@7, COPY@8, COPY@9, EXPOSE@10; images a@1, b:1@9; copies ; ports 1@10; final "a"
    instructions FROM@1, RUN@2, COPY@6, EXPOSE@11; images a@1; copies ; ports 4@11; final "a"
    instructions FROM@1, RUN@2; images a@1; copies ; ports ; final "a"
    instructions ARG@1, ARG@2, FROM@3, ARG@4, EXPOSE@5; images docker.io/x/y:1@3; copies ; ports 801@5; final "docker.io/x/y:1"
    instructions FROM@1, FROM@2, RUN@3; images b@2, c@3; copies ; ports ; final "b"
    instructions FROM@1, FROM@2, ADD@3; images ; copies local.tar@3; ports ; final "scratch"
    instructions ENV@1, FROM@2, ENV@3, ENV@4, EXPOSE@5; images x@2; copies ; ports ; final "x"
    instructions ; images ; copies ; ports ; final ""
    instructions FROM@1; images ; copies ; ports ; final ""
    instructions FROM@1, FROM@2; images a@1; copies ; ports ; final "a"
    instructions FROM@1, FROM@2, FROM@3, COPY@4; images b@1; copies ; ports ; final "b"
    instructions RUN@1; images ; copies ; ports ; final ""
    instructions FROM@1, COPY@2, ADD@3, EXPOSE@4, ARG@5, ENV@6, ONBUILD@7, HEALTHCHECK@8, 日本@9; images a@1; copies ; ports ; final "a"
    "#);
}

#[test]
fn variables_are_put_in() {
    let variables: BTreeMap<String, String> =
        [("A", "1"), ("EMPTY", ""), ("Ü", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let cases = [
        "$A",
        "${A}b",
        "$Ab",
        "${B}",
        "${B:-d}",
        "${EMPTY:-d}",
        "${EMPTY-d}",
        "${B-d}",
        "${A:+y}",
        "${B:+y}",
        "\\$A",
        "${B:-${A}}",
        "${",
        "${A",
        "$",
        "$$",
        "\"$A\"",
        "${A%x}",
        "${Ü}",
        "a\\",
        "${B:-$A-$A}",
    ];
    let all: Vec<String> = cases.iter().map(|text| format!("{text} = {}", expand(text, &variables))).collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    $A = 1
    ${A}b = 1b
    $Ab = 
    ${B} = 
    ${B:-d} = d
    ${EMPTY:-d} = d
    ${EMPTY-d} = 
    ${B-d} = d
    ${A:+y} = y
    ${B:+y} = 
    \$A = $A
    ${B:-${A}} = 1
    ${ = ${
    ${A = ${A
    $ = $
    $$ = $$
    "$A" = 1
    ${A%x} = 1
    ${Ü} = 
    a\ = a
    ${B:-$A-$A} = 1-1
    "#);
}

#[test]
fn steps_lead_to_lines() {
    let text = "FROM busybox AS build\nWORKDIR /x\nENV A=1\nRUN make \\\n  all\nFROM build AS more\nRUN more\nFROM scratch\nCOPY --from=build /x /x\nRUN last\n";
    let dockerfile = Dockerfile::read(text, &BTreeMap::new());
    let line = |step: &str| dockerfile.step(step).map(|i| i.line);
    let cases = [
        ("[build 1/3] FROM docker.io/library/busybox", Some(1)),
        ("[build 2/3] WORKDIR /x", Some(2)),
        ("[build 3/3] RUN make   all", Some(4)),
        ("[more 1/1] RUN more", Some(7)),
        ("[stage-2 1/2] COPY --from=build /x /x", Some(9)),
        ("[stage-2 2/2] RUN last", Some(10)),
        ("[linux/amd64 build 3/3] RUN make   all", Some(4)),
        ("[nowhere 9/9] RUN last", Some(10)),
        ("Step 4/9 : RUN make   all", Some(4)),
        ("Step 0/9 : x", None),
        ("[internal] load build context", None),
        ("exporting to image", None),
        ("[", None),
        ("[]", None),
        ("", None),
    ];
    for (step, wanted) in cases {
        assert_eq!(line(step), wanted, "{step}");
    }
}

#[test]
fn hostile_dockerfiles_end() {
    let doubling: String = (0..60).map(|_| "ENV A=$A$A$A\n").collect();
    let nested = format!("FROM {}x{}\n", "${A:-".repeat(5000), "}".repeat(5000));
    let chain: String = (0..3000).map(|n| format!("FROM s{n} AS s{}\n", n + 1)).collect();
    let long = format!("FROM a\nRUN {}\n", "x".repeat(900_000));
    for text in [
        format!("FROM a\nENV A=xx\n{doubling}EXPOSE $A\n"),
        nested,
        chain,
        long,
        "\\\n".repeat(100_000),
        "FROM a\nRUN <<A <<B <<C\n".repeat(2000),
    ] {
        let dockerfile = Dockerfile::read(&text, &BTreeMap::new());
        let _ = (dockerfile.images(), dockerfile.ports(), dockerfile.copied(), dockerfile.environment("A"));
    }
}
