//! What runs in a step's pod, in plain `sh`: it is the step's own image, and nobody knows what else is in it.

/// The folder that the pod's containers share. A step reads it; only the keeper writes there.
pub(super) const SHARED: &str = "/.switchover";
/// User and group of the step and of what is ours: nobody's on any system.
pub(super) const USER: u32 = 65532;
/// What that user is called inside.
pub(super) const NAME: &str = "switchover";
/// Exit code of [`USERS`] where the image has no `tar`.
pub(super) const NO_TAR: i32 = 64;
/// Last in a stream that came through, with the exit code of what made it behind it.
pub(super) const DONE: &[u8] = b"\0switchover-done ";

/// First of all: is there a `tar`, and the image's list of users with the step's user in it, whose home is `$1`. Programs
/// that don't believe in `HOME` (Java, ssh) look there. The list is put over the image's in the step's container.
pub(super) const USERS: &str = r#"
command -v tar >/dev/null 2>&1 || exit 64
umask 022
{
    if [ -r /etc/passwd ]; then
        while IFS=: read -r name word id rest; do
            [ "$id" = 65532 ] || [ -z "$id" ] || printf '%s\n' "$name:$word:$id:$rest"
        done </etc/passwd
    fi
    printf 'switchover:x:65532:65532::%s:/bin/sh\n' "$1"
} >/.switchover/passwd
"#;

/// The keeper: it is there so that files can be brought and taken while the step has not begun, or has ended.
pub(super) const KEEPER: &str = r#"
trap 'exit 0' TERM
while :; do sleep 3600 & wait "$!"; done
"#;

/// After the files were brought: the step may begin. What changes from now on is newer than the stamp, whatever the
/// clock's grain.
pub(super) const GO: &str = r#"
[ -e /.switchover/in ] || exit 65
: >/.switchover/stamp
sleep 0.1 2>/dev/null || sleep 1
: >/.switchover/go
"#;

/// The first process of the step's container. It waits for the word to begin, and runs the step's command as `sh -e -c`
/// with standard error in its place among the output. At TERM it hands the signal to everything in the container and
/// waits until all of it has ended; the first process itself can't be ended from inside. What the step cost goes to
/// where the kubelet reads it ("Customizing the termination message"): cgroup v2 and v1 tell it in different files.
pub(super) const FIRST: &str = r#"
ending=
trap 'ending=1; kill -TERM -1 2>/dev/null' TERM
until [ -e /.switchover/go ]; do
    [ -z "$ending" ] || exit 143
    sleep 0.1 2>/dev/null || sleep 1
done
@STORES@
cd -- "$2" || exit 126
unset OLDPWD
of() {
    while read -r key value _; do [ "$key" != "$2" ] || { echo "$value"; return; }; done <"$1"
}
cost() {
    cd /sys/fs/cgroup || return
    if [ -r cpu.stat ]; then
        us=$(of cpu.stat usage_usec) peak= idle=$(of memory.stat inactive_file) oom=$(of memory.events oom_kill)
        read -r peak <memory.peak
        echo "us=$us peak=$peak idle=$idle oom=$oom"
    else
        ns= peak=
        read -r ns <cpuacct/cpuacct.usage
        read -r peak <memory/memory.max_usage_in_bytes
        echo "ns=$ns peak=$peak idle=$(of memory/memory.stat total_inactive_file) oom=$(of memory/memory.oom_control oom_kill)"
    fi
}
sh -e -c "$1" 2>&1 &
step=$!
# What the shell says of a child that was killed is not the step's output.
exec 2>/dev/null
code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do code=0; wait "$step" || code=$?; done
if [ -n "$ending" ]; then
    while kill -0 -1 2>/dev/null; do sleep 0.1 2>/dev/null || sleep 1; done
fi
cost >/dev/termination-log
exit "$code"
"#;

/// Variables of images that lead a tool's store out of the home, and what they are for a step: caches lie in the home.
/// (Maven's image has `MAVEN_CONFIG` for its entry point; its wrapper takes it for arguments.)
const STORES: [(&str, &str); 4] = [
    ("MAVEN_CONFIG", ""),
    ("CARGO_HOME", "$HOME/.cargo"),
    ("GOPATH", "$HOME/go"),
    ("GRADLE_USER_HOME", "$HOME/.gradle"),
];

/// [`FIRST`] for a step that says itself what `own` names.
pub(super) fn first(own: impl Fn(&str) -> bool) -> String {
    let lines = STORES.iter().filter(|(name, _)| !own(name));
    let lines = lines.map(|(name, value)| format!("[ -z \"${{{name}+x}}\" ] || export {name}=\"{value}\"\n"));
    FIRST.replace("@STORES@\n", &lines.collect::<String>())
}

/// Packs the folder `$1` for the way back. Where `find` and `tar` can (GNU), that is first the names of all that is there,
/// then what changed since the stamp; elsewhere all of it. The workspace's own `.git` stays. A stream that was cut off
/// lacks the last word.
pub(super) const TAKE: &str = r#"
cd -- "$1" || exit 66
stamp=/.switchover/stamp
gnu=
case "$(tar --version 2>/dev/null)" in *GNU*) gnu=1 ;; esac
if [ -n "$gnu" ] && find . -maxdepth 0 -cnewer "$stamp" -print0 >/dev/null 2>&1; then
    printf 'changed\n'
    find . -path ./.git -prune -o -print0
    printf '\0'
    find . -path ./.git -prune -o -cnewer "$stamp" ! -type s -print0 |
        tar --format=gnu --no-recursion --null -T - -cf -
    code=$?
else
    printf 'all\n'
    tar -cf - .
    code=$?
fi
printf '\0switchover-done %s\n' "$code"
"#;

/// Unpacks what is brought.
pub(super) const BRING: [&str; 3] = ["sh", "-c", "tar -C / -xpf -"];
/// Asks the step to end.
pub(super) const TERM: [&str; 3] = ["sh", "-c", "kill -TERM 1"];
/// Ends the step: everything but its first process, which then sees to its own end, and whoever says this.
pub(super) const KILL: [&str; 3] = ["sh", "-c", "kill -KILL -1"];
