//! Test reports in several dialects, broken and hostile ones among them.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use proptest::prelude::*;
use switchover::{
    domain::run::{TestReport, TestState},
    exec::reports::{annotations, find_reports, merge, read_junit, read_libtest},
};

/// A report as a few lines: totals, cases, problems.
fn show(report: &TestReport) -> String {
    let TestReport { passed, failed, skipped, flaky, .. } = report;
    let mut out = format!("{passed} passed, {failed} failed, {skipped} skipped, {flaky} flaky\n");
    for case in &report.cases {
        let time = case.seconds.map(|s| format!(" {s}s")).unwrap_or_default();
        let place = case.location.as_ref().map(|(file, line)| format!(" @ {file}:{line}")).unwrap_or_default();
        writeln!(out, "{:?} {} | {}{time}{place}", case.state, case.suite, case.name).unwrap();
        for (what, text) in [("message", &case.message), ("trace", &case.trace)] {
            if let Some(text) = text {
                writeln!(out, "  {what}: {}", text.replace('\n', "⏎")).unwrap();
            }
        }
    }
    for problem in &report.problems {
        writeln!(out, "! {problem}").unwrap();
    }
    out
}

fn junit(app: &str, name: &str, content: &str, have: &[&str]) -> String {
    let files = [(name.to_owned(), content.as_bytes().to_vec())];
    show(&read_junit(&files, app, &|path| have.contains(&path)))
}

const SUREFIRE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="3.0" name="com.acme.CartTest" time="1,234.5" tests="6" errors="1" skipped="1" failures="1">
  <properties><property name="java.version" value="17"/></properties>
  <testcase name="adds" classname="com.acme.CartTest" time="0.012"/>
  <testcase name="sums" classname="com.acme.CartTest" time="1.5">
    <failure message="expected: &lt;3&gt; but was: &lt;2&gt;" type="org.opentest4j.AssertionFailedError"><![CDATA[org.opentest4j.AssertionFailedError: expected: <3> but was: <2>
	at org.junit.jupiter.api.AssertionUtils.fail(AssertionUtils.java:55)
	at com.acme.CartTest.sums(CartTest.java:42)
	at java.base/java.util.ArrayList.forEach(ArrayList.java:1511)
]]></failure>
    <system-out><![CDATA[not a trace]]></system-out>
  </testcase>
  <testcase name="breaks" classname="com.acme.CartTest$Inner" time="0">
    <error type="java.lang.NullPointerException">java.lang.NullPointerException
	at app//com.acme.Cart.get(Cart.java:7)
	at app//com.acme.CartTest$Inner.breaks(CartTest.java:50)
</error>
  </testcase>
  <testcase name="later" classname="com.acme.CartTest"><skipped message="not yet"/></testcase>
  <testcase name="wobbles" classname="com.acme.CartTest" time="0.2">
    <flakyFailure message="timed out" type="java.util.concurrent.TimeoutException">
      <stackTrace><![CDATA[java.util.concurrent.TimeoutException: timed out
	at com.acme.CartTest.wobbles(CartTest.java:60)]]></stackTrace>
      <system-out>noise</system-out>
    </flakyFailure>
  </testcase>
  <testcase name="always" classname="com.acme.CartTest" time="0.3">
    <failure message="first">at com.acme.CartTest.always(CartTest.java:70)</failure>
    <rerunFailure message="second"><stackTrace>other</stackTrace></rerunFailure>
  </testcase>
</testsuite>"#;

#[test]
fn surefire_is_read_and_failures_have_their_lines() {
    let have = ["backend/src/test/java/com/acme/CartTest.java", "backend/src/main/java/com/acme/Cart.java"];
    insta::assert_snapshot!(junit("backend", "target/surefire-reports/TEST-x.xml", SUREFIRE, &have), @r"
    1 passed, 3 failed, 1 skipped, 1 flaky
    Failed com.acme.CartTest | sums 1.5s @ backend/src/test/java/com/acme/CartTest.java:42
      message: expected: <3> but was: <2>
      trace: org.opentest4j.AssertionFailedError: expected: <3> but was: <2>⏎	at org.junit.jupiter.api.AssertionUtils.fail(AssertionUtils.java:55)⏎	at com.acme.CartTest.sums(CartTest.java:42)⏎	at java.base/java.util.ArrayList.forEach(ArrayList.java:1511)
    Failed com.acme.CartTest$Inner | breaks 0s @ backend/src/test/java/com/acme/CartTest.java:50
      message: java.lang.NullPointerException
      trace: java.lang.NullPointerException⏎	at app//com.acme.Cart.get(Cart.java:7)⏎	at app//com.acme.CartTest$Inner.breaks(CartTest.java:50)
    Failed com.acme.CartTest | always 0.3s @ backend/src/test/java/com/acme/CartTest.java:70
      message: first
      trace: at com.acme.CartTest.always(CartTest.java:70)
    Flaky com.acme.CartTest | wobbles 0.2s @ backend/src/test/java/com/acme/CartTest.java:60
      message: timed out
      trace: java.util.concurrent.TimeoutException: timed out⏎	at com.acme.CartTest.wobbles(CartTest.java:60)
    Passed com.acme.CartTest | adds 0.012s
    ");
    let module = ["backend/core/src/test/java/com/acme/CartTest.java"];
    let report = junit("backend", "core/target/surefire-reports/TEST-x.xml", SUREFIRE, &module);
    assert!(report.contains("@ backend/core/src/test/java/com/acme/CartTest.java:42"), "{report}");
    assert!(!junit("", "x.xml", SUREFIRE, &[]).contains('@'));
}

#[test]
fn other_dialects_are_read() {
    let pytest = r#"<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="1" failures="1" tests="3" time="0.1" hostname="h">
<testcase classname="tests.test_cart.TestSum" name="test_sum[1-2]" time="0.001"><failure message="assert 2 == 3">def test_sum():
&gt;       assert 2 == 3
E       assert 2 == 3

tests/test_cart.py:5: AssertionError</failure></testcase>
<testcase classname="" name="tests.test_broken" time="0.000"><error message="collection failure">ImportError while importing test module '/home/ci/shop/tests/test_broken.py'.
tests/test_broken.py:1: in &lt;module&gt;</error></testcase>
<testcase classname="tests.test_cart" name="test_skip" time="0.0"><skipped type="pytest.skip" message="no">x</skipped></testcase>
</testsuite></testsuites>"#;
    let have = ["api/tests/test_cart.py", "api/tests/test_broken.py"];
    insta::assert_snapshot!(junit("api", "report.xml", pytest, &have), @r"
    0 passed, 2 failed, 1 skipped, 0 flaky
    Failed tests.test_cart.TestSum | test_sum[1-2] 0.001s @ api/tests/test_cart.py:5
      message: assert 2 == 3
      trace: def test_sum():⏎>       assert 2 == 3⏎E       assert 2 == 3⏎⏎tests/test_cart.py:5: AssertionError
    Failed pytest | tests.test_broken 0s @ api/tests/test_broken.py:1
      message: collection failure
      trace: ImportError while importing test module '/home/ci/shop/tests/test_broken.py'.⏎tests/test_broken.py:1: in <module>
    ");

    let jest = r#"<testsuites name="jest tests" tests="2" failures="1" time="1.2">
<testsuite name="cart" errors="0" failures="1"><testcase classname="cart sums" name="cart sums" time="0.02" file="/builds/acme/shop/web/src/cart.test.ts">
<failure>Error: [31mexpect[39m(received)
    at Object.toBe (/builds/acme/shop/web/node_modules/x/index.js:1:1)
    at Object.&lt;anonymous&gt; (/builds/acme/shop/web/src/cart.test.ts:9:21)</failure></testcase>
<testcase classname="cart ok" name="cart ok" time="0,5"/></testsuite></testsuites>"#;
    insta::assert_snapshot!(junit("web", "junit.xml", &jest.replace("[3", "\u{1b}[3"), &["web/src/cart.test.ts"]), @r"
    1 passed, 1 failed, 0 skipped, 0 flaky
    Failed cart sums | cart sums 0.02s @ web/src/cart.test.ts:9
      message: Error: expect(received)
      trace: Error: expect(received)⏎    at Object.toBe (/builds/acme/shop/web/node_modules/x/index.js:1:1)⏎    at Object.<anonymous> (/builds/acme/shop/web/src/cart.test.ts:9:21)
    Passed cart ok | cart ok 0.5s
    ");

    let nested = r#"<testsuites><testsuite name="outer"><testsuite name="tests/CartTest.php" file="/app/tests/CartTest.php">
<testcase name="testSum" file="/app/tests/CartTest.php" line="12" class="CartTest" assertions="1" time="0.01"><failure type="X">CartTest::testSum
Failed asserting that 2 is 3.</failure></testcase>
<testcase name="no class"/></testsuite>
<error message="could not begin">boom</error></testsuite></testsuites>"#;
    insta::assert_snapshot!(junit("", "junit.xml", nested, &["tests/CartTest.php"]), @r"
    1 passed, 2 failed, 0 skipped, 0 flaky
    Failed CartTest | testSum 0.01s @ tests/CartTest.php:12
      message: Failed asserting that 2 is 3.
      trace: CartTest::testSum⏎Failed asserting that 2 is 3.
    Failed outer | (the suite itself)
      message: could not begin
      trace: boom
    ");

    let google = r#"<testsuites tests="3"><testsuite name="Cart"><testcase name="Sum" file="cart_test.cc" line="7" status="run" result="completed" time="0.001" classname="Cart"><failure message="cart_test.cc:9&#x0A;Expected equality" type=""><![CDATA[cart_test.cc:9
Expected equality]]></failure></testcase><testcase name="Off" status="notrun" result="suppressed" classname="Cart"/></testsuite></testsuites>"#;
    insta::assert_snapshot!(junit("", "r.xml", google, &["cart_test.cc"]), @r"
    0 passed, 1 failed, 1 skipped, 0 flaky
    Failed Cart | Sum 0.001s @ cart_test.cc:9
      message: cart_test.cc:9⏎Expected equality
      trace: cart_test.cc:9⏎Expected equality
    ");
}

#[test]
fn a_broken_report_is_told_and_hides_no_other() {
    let files =
        |list: &[(&str, &str)]| list.iter().map(|(n, c)| ((*n).to_owned(), c.as_bytes().to_vec())).collect::<Vec<_>>();
    let deep = "<testsuite>".repeat(100_000);
    let lol = "<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;\">]><testsuite><testcase name=\"&lol2;\"/></testsuite>";
    let list = files(&[
        ("empty.xml", " \n"),
        ("other.xml", "<project><testcase/></project>"),
        ("html.xml", "<!DOCTYPE html><html><br></html>"),
        ("text.xml", "no xml at all"),
        ("cut.xml", "<testsuite name='s'>\n<testcase name='fine'/>\n<testcase name='dies'><failure message='m'>tra"),
        ("half.xml", "<testsuite name='s'><testcase name='fine'/><testcase name='?'"),
        ("bomb.xml", lol),
        (
            "xxe.xml",
            "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><testsuite><testcase name='&x;'/></testsuite>",
        ),
        ("deep.xml", &deep),
        ("wrong.xml", "<testsuite><testcase name='a'></testsuite></testcase><testcase name='b' name='c' x/></nothing>"),
        (
            "amp.xml",
            "<testsuite><testcase name='a & b &unknown; &#0; &#x41;'><failure>x & y &unknown; &#65;</failure></testcase></testsuite>",
        ),
        (
            "good.xml",
            "\u{FEFF}<testsuite name='g'><testcase name='good' time='-1'/><testcase name='time' time='NaN'/></testsuite>",
        ),
    ]);
    let mut list = list;
    list.push(("bytes.xml".into(), b"<testsuite><testcase name='\xff\x00'/></testsuite>".to_vec()));
    insta::assert_snapshot!(show(&read_junit(&list, "", &|_| true)), @r"
    8 passed, 2 failed, 0 skipped, 0 flaky
    Failed s | dies @ src/test/java/s.java:1
      message: m
      trace: tra
    Failed  | a & b &unknown;  A
      message: x & y &unknown; A
      trace: x & y &unknown; A
    ! empty.xml: is empty
    ! html.xml: is no JUnit XML: there is no <testsuite>
    ! text.xml: is no JUnit XML: there is no <testsuite>
    ! cut.xml: ends in the middle, in line 3
    ! half.xml: is broken in line 1: syntax error: tag not closed: `>` not found before end of input
    ! bomb.xml: has a document type with entities, which are not read
    ! xxe.xml: has a document type with entities, which are not read
    ! deep.xml: is nested deeper than 64 in line 1
    ");
}

#[test]
fn what_is_kept_is_bounded() {
    let mut xml = String::from("<testsuite name='s'>");
    let long = "x".repeat(100_000);
    for n in 0..700 {
        write!(
            xml,
            "<testcase name='f{n}' classname='a.B'><failure message='{}'>{}</failure></testcase>",
            &long[..9000],
            &long[..30_000]
        )
        .unwrap();
        write!(xml, "<testcase name='{long}p{n}' time='{n}'/>").unwrap();
    }
    xml.push_str("</testsuite>");
    let report = read_junit(&[("x.xml".into(), xml.into_bytes())], "", &|_| false);
    assert_eq!((report.failed, report.passed), (700, 700));
    assert_eq!(report.cases.len(), 510);
    let slow: Vec<f64> =
        report.cases.iter().filter(|c| c.state == TestState::Passed).filter_map(|c| c.seconds).collect();
    assert_eq!(slow, [699.0, 698.0, 697.0, 696.0, 695.0, 694.0, 693.0, 692.0, 691.0, 690.0]);
    for case in &report.cases {
        assert!(case.name.len() < 400 && case.suite.len() < 400);
        assert!(
            case.message.as_ref().is_none_or(|m| m.len() < 4200)
                && case.trace.as_ref().is_none_or(|t| t.len() < 17_000)
        );
    }
    let both = merge([report.clone(), report]);
    assert_eq!((both.failed, both.passed, both.cases.len()), (1400, 1400, 510));
}

#[test]
fn annotations_stand_on_lines() {
    let have = ["backend/src/test/java/com/acme/CartTest.java"];
    let files = [("target/x.xml".to_owned(), SUREFIRE.as_bytes().to_vec())];
    let report = read_junit(&files, "backend", &|path| have.contains(&path));
    let shown: Vec<String> = annotations(&report)
        .into_iter()
        .map(|a| format!("{:?} {}:{} [{}] {}", a.level, a.path, a.start_line, a.title.unwrap(), a.message))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    Failure backend/src/test/java/com/acme/CartTest.java:42 [com.acme.CartTest: sums] expected: <3> but was: <2>
    Failure backend/src/test/java/com/acme/CartTest.java:50 [com.acme.CartTest$Inner: breaks] java.lang.NullPointerException
    Failure backend/src/test/java/com/acme/CartTest.java:70 [com.acme.CartTest: always] first
    Warning backend/src/test/java/com/acme/CartTest.java:60 [com.acme.CartTest: wobbles (flaky)] timed out
    ");
}

const LIBTEST: &str = "   Compiling shop-cart v0.1.0
     Running unittests src/lib.rs (target/debug/deps/shop_cart-145b3f473f3853c6)

running 6 tests
test tests::fails_by_result ... FAILED
test tests::ok ... ok
test tests::slow ... ignored, slow
test tests::should - should panic ... FAILED
test tests::sums ... FAILED
test tests::unwraps ... FAILED

failures:

---- tests::fails_by_result stdout ----
Error: \"no disk\"

---- tests::should stdout ----
note: test did not panic as expected at src/lib.rs:19:8
---- tests::sums stdout ----
before

thread 'tests::sums' (24805) panicked at src/lib.rs:11:9:
assertion `left == right` failed: sum is off
  left: 2
 right: 3
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace

---- tests::unwraps stdout ----

thread 'tests::unwraps' (24806) panicked at src/lib.rs:26:11:
called `Option::unwrap()` on a `None` value


failures:
    tests::fails_by_result
    tests::should
    tests::sums
    tests::unwraps

test result: FAILED. 1 passed; 4 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

error: test failed, to rerun pass `--lib`
   Doc-tests shop_cart

running 1 test
test src/lib.rs - (line 1) ... FAILED

failures:

---- src/lib.rs - (line 1) stdout ----
Test executable failed (exit status: 101).

stderr:

thread 'main' (24823) panicked at src/lib.rs:3:1:
assertion `left == right` failed
  left: 1
 right: 2
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace



failures:
    src/lib.rs - (line 1)

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.22s
";

fn libtest(text: &str, app: &str, have: &[&str]) -> String {
    show(&read_libtest(text.lines(), app, &|path| have.contains(&path)))
}

#[test]
fn libtests_words_are_read() {
    insta::assert_snapshot!(libtest(LIBTEST, "", &["src/lib.rs"]), @r#"
    1 passed, 5 failed, 1 skipped, 0 flaky
    Failed shop_cart | tests::fails_by_result
      message: Error: "no disk"
      trace: Error: "no disk"
    Failed shop_cart | tests::should @ src/lib.rs:19
      message: note: test did not panic as expected at src/lib.rs:19:8
      trace: note: test did not panic as expected at src/lib.rs:19:8
    Failed shop_cart | tests::sums @ src/lib.rs:11
      message: assertion `left == right` failed: sum is off⏎  left: 2⏎ right: 3
      trace: before⏎⏎thread 'tests::sums' (24805) panicked at src/lib.rs:11:9:⏎assertion `left == right` failed: sum is off⏎  left: 2⏎ right: 3⏎note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
    Failed shop_cart | tests::unwraps @ src/lib.rs:26
      message: called `Option::unwrap()` on a `None` value
      trace: thread 'tests::unwraps' (24806) panicked at src/lib.rs:26:11:⏎called `Option::unwrap()` on a `None` value
    Failed shop_cart (doc) | src/lib.rs - (line 1) @ src/lib.rs:3
      message: assertion `left == right` failed⏎  left: 1⏎ right: 2
      trace: Test executable failed (exit status: 101).⏎⏎stderr:⏎⏎thread 'main' (24823) panicked at src/lib.rs:3:1:⏎assertion `left == right` failed⏎  left: 1⏎ right: 2⏎note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
    "#);
    // A member of a workspace: paths are from the workspace, or from the member.
    assert!(libtest(LIBTEST, "crates/cart", &["crates/cart/src/lib.rs"]).contains("@ crates/cart/src/lib.rs:11"));
    let workspace = LIBTEST.replace("at src/lib.rs", "at crates/cart/src/lib.rs");
    assert!(libtest(&workspace, "crates/cart", &["crates/cart/src/lib.rs"]).contains("@ crates/cart/src/lib.rs:11"));
    let coloured = LIBTEST.replace("... ok", "... \x1b[32mok\x1b(B\x1b[m").replace("FAILED", "\x1b[31mFAILED\x1b[0m");
    assert!(
        libtest(&coloured, "", &[]).starts_with("1 passed, 5 failed, 1 skipped"),
        "{}",
        libtest(&coloured, "", &[])
    );
    assert_eq!(
        libtest("a log\nof something else\ntest result: none\n", "", &[]),
        "0 passed, 0 failed, 0 skipped, 0 flaky\n"
    );
}

#[test]
fn libtest_among_noise_and_cut_off() {
    let noise = "     Running tests/it/main.rs (/w/target/debug/deps/it-0123456789abcdef)
running 5 tests
test a ... some output
more
ok
test b ... ok <1.250s>
test c has been running for over 60 seconds
test c ... FAILED
lost: test d ... ok

failures:

---- c stdout ----
running 3 tests
test x ... FAILED
test result: FAILED. 9 passed; 9 failed; 9 ignored; 0 measured; 0 filtered out
thread 'c' panicked at 'old style, \"quoted\"', tests/it/main.rs:4:2

failures:
    c

test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
     Running tests/dies.rs (target/debug/deps/dies-0123456789abcdef)

running 2 tests
test one ... ok
test two ... error: test failed, to rerun pass `--test dies`
";
    insta::assert_snapshot!(libtest(noise, "", &["tests/it/main.rs"]), @r#"
    5 passed, 1 failed, 0 skipped, 0 flaky
    Failed it | c @ tests/it/main.rs:4
      message: old style, "quoted"
      trace: running 3 tests⏎test x ... FAILED⏎test result: FAILED. 9 passed; 9 failed; 9 ignored; 0 measured; 0 filtered out⏎thread 'c' panicked at 'old style, "quoted"', tests/it/main.rs:4:2
    Passed it | b 1.25s
    ! dies: the test program ended during two after 1 of 2 tests, without a result
    "#);
}

#[test]
fn reports_are_found_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("app");
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("target/surefire-reports/TEST-b.xml", "b");
    write("target/surefire-reports/TEST-a.xml", "a");
    write("target/surefire-reports/a.txt", "no");
    write("target/surefire-reports/deep/c.xml", "no");
    write("mod ü/target/surefire-reports/d.xml", "d");
    write(".git/x.xml", "no");
    fs::write(dir.path().join("secret.xml"), "secret").unwrap();
    symlink(dir.path().join("secret.xml"), root.join("target/surefire-reports/link.xml")).unwrap();
    symlink(dir.path(), root.join("out")).unwrap();
    nix::unistd::mkfifo(&root.join("target/surefire-reports/fifo.xml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(root.join("target/surefire-reports/dir.xml")).unwrap();
    fs::File::create(root.join("big.xml")).unwrap().set_len(30 * 1024 * 1024).unwrap();
    fs::set_permissions(root.join("target/surefire-reports/a.txt"), fs::Permissions::from_mode(0o000)).unwrap();
    let find = |patterns: &[&str]| {
        let found = find_reports(&root, &patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        let names: Vec<String> = found.files.into_iter().map(|(n, c)| format!("{n}={}", c.len())).collect();
        format!("{}\n{}", names.join(" "), found.problems.join("\n"))
    };
    insta::assert_snapshot!(find(&["target/surefire-reports/*.xml"]), @r"target/surefire-reports/TEST-a.xml=1 target/surefire-reports/TEST-b.xml=1");
    insta::assert_snapshot!(find(&["./**/surefire-reports/*.xml", "target/surefire-reports/TEST-*.xml"]), @r"mod ü/target/surefire-reports/d.xml=1 target/surefire-reports/TEST-a.xml=1 target/surefire-reports/TEST-b.xml=1");
    insta::assert_snapshot!(find(&["out/*.xml", "../*.xml", "/etc/*", "a[", "", "*.xml", "nowhere/x.xml"]), @r#"
    reports: "../*.xml" leads out of the app's folder
    reports: "/etc/*" leads out of the app's folder
    reports: "a[" is no pattern: unclosed character class; missing ']'
    reports: "" leads out of the app's folder
    big.xml: larger than 20 MB, not read
    "#);
}

proptest! {
    /// Reading is total, whatever the bytes.
    #[test]
    fn no_junit_is_a_crash(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let report = read_junit(&[("x".into(), bytes)], "a", &|_| true);
        prop_assert!(report.cases.len() <= 510);
    }

    /// Pieces of real reports in any order.
    #[test]
    fn no_mixture_is_a_crash(parts in prop::collection::vec(prop::sample::select(vec![
        "<testsuite name='a'>", "</testsuite>", "<testcase name='x' classname='a.B'>", "</testcase>", "<failure message='m'>",
        "</failure>", "<flakyFailure>", "</flakyFailure>", "<stackTrace>", "at a.B.c(B.java:3)\n", "<skipped/>", "<![CDATA[", "]]>",
        "<!--", "-->", "&#x", "&amp;", "<", "\u{0}", "<system-out>", "x.rs:9999999999999:1", "<error/>", "<?", "<!DOCTYPE a>",
    ]), 0..40), have in any::<bool>()) {
        let text = parts.concat();
        let report = read_junit(&[("m/x".into(), text.clone().into_bytes())], "a/b", &|_| have);
        for a in annotations(&report) {
            prop_assert!(a.start_line > 0 && !a.path.starts_with(['/', '.']));
        }
        let _ = read_libtest(text.lines(), "a", &|_| have);
    }

    #[test]
    fn no_libtest_is_a_crash(parts in prop::collection::vec(prop::sample::select(vec![
        "running 2 tests", "running 99999999999999999999 tests", "test a ... ok", "test a ... FAILED", "test b ...", "ok", "failures:",
        "---- a stdout ----", "---- b stdout ----", "thread 'a' panicked at src/x.rs:1:2:", "thread 'a' panicked at '', ü:0:0", "",
        "test result: ok. 1 passed; 0 failed; 0 ignored", "test result: ok.", "     Running x (y-z)", "   Doc-tests ü", "test  ... ", "<s>",
    ]), 0..40)) {
        let report = read_libtest(parts.iter(), "../x", &|p| !p.is_empty());
        prop_assert!(report.cases.len() <= 510);
    }
}
