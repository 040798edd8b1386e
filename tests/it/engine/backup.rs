//! The disk of the server is lost; a backup from before the last release is all there is.

use std::process::Command;

use super::{
    rig::{NAME, OWNER, Rig},
    stories::begun,
};

fn switchover(rig: &Rig, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchover"));
    let output = command.args(args).env("SWITCHOVER_DATA", &rig.data).output().expect("started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_releases_nothing_twice() {
    let mut rig = begun(&super::rig::released_config()).await;
    let one = rig.push("main", &[("version", Some("one"))], "one").await;
    rig.deployed(&one, "success").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup.tar");
    let file = file.to_str().expect("text");
    switchover(&rig, &["backup", file]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file).expect("there").permissions());
    assert_eq!(mode & 0o077, 0, "a backup holds secrets");
    let two = rig.push("main", &[("version", Some("two"))], "two").await;
    rig.deployed(&two, "success").await;

    rig.lose_disk().await;
    let said = switchover(&rig, &["restore", file]);
    assert!(said.contains("neither") && said.contains("switchover.db"), "{said}");
    rig.serve(None).await;
    // After the sweep everything that could be found is found.
    rig.control.about("sweep", "").await.expect("swept");
    let deployments = |sha: &str| rig.counts(sha, "switchover");
    assert_eq!((deployments(&one), deployments(&two)), ((1, 1), (1, 1)));
    // A later push goes its way, on a host whose releases of files are gone too.
    let three = rig.push("main", &[("version", Some("three"))], "three").await;
    rig.deployed(&three, "success").await;
    let answer = reqwest::get(rig.address().await).await.expect("answered").text().await.expect("text");
    assert_eq!(answer, "three");
    let why = rig.control.about("explain", &two).await.unwrap_or_default();
    assert_eq!((deployments(&one), deployments(&two)), ((1, 1), (1, 1)), "{why}");
    let deployments_all = rig.github.read(|m| m.repo(OWNER, NAME).map(|r| r.deployments.len()));
    // The one that began it all, and three of this test.
    assert_eq!(deployments_all, Some(4));
    rig.stop().await;
}

#[test]
fn what_is_no_backup_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let restore = |file: &std::path::Path, data: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchover"));
        let output = command.arg("restore").arg(file).env("SWITCHOVER_DATA", data).output().expect("started");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let data = folder.path().join("data");
    let stranger = folder.path().join("stranger.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&stranger).expect("made"));
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    // The library refuses to write such a path by its usual door.
    header.as_gnu_mut().expect("gnu").name[..15].copy_from_slice(b"../outside/file");
    header.set_cksum();
    archive.append(&header, &b"x"[..]).expect("written");
    archive.into_inner().expect("written");
    let (ok, said) = restore(&stranger, &data);
    assert!(!ok && said.contains("which no backup of Switchover does"), "{said}");
    assert!(!folder.path().join("outside").exists());
    let cut = folder.path().join("cut.tar");
    std::fs::write(&cut, b"not an archive at all").expect("written");
    let (ok, said) = restore(&cut, &data);
    assert!(!ok && said.contains("database") || said.contains("archive"), "{said}");
    std::fs::write(data.join("switchover.db"), b"precious").expect("written");
    let (ok, said) = restore(&cut, &data);
    assert!(!ok && said.contains("is there already"), "{said}");
    assert_eq!(std::fs::read(data.join("switchover.db")).expect("there"), b"precious");
}
