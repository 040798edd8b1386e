// node start.mjs HOST PORT LOG COMMAND...: starts a server that goes on by itself, waits until it takes a connection,
// prints "PID MILLISECONDS".
import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { connect } from "node:net";
import { performance } from "node:perf_hooks";

const [host, port, log, command, ...args] = process.argv.slice(2);
const out = openSync(log, "a");
const began = performance.now();
const child = spawn(command, args, { detached: true, stdio: ["ignore", out, out] });
let ended = null;
child.on("error", (e) => (ended = e.message));
child.on("exit", (code, signal) => (ended = `it ended (${code ?? signal})`));

const taken = () =>
  new Promise((resolve) => {
    const socket = connect({ host, port: Number(port) });
    socket.on("connect", () => (socket.destroy(), resolve(true)));
    socket.on("error", () => resolve(false));
  });
while (!(await taken())) {
  if (ended || performance.now() - began > 20_000) {
    console.error(`${command} does not come up: ${ended ?? "20 s are over"}; see ${log}`);
    if (!ended) process.kill(child.pid, "SIGKILL");
    process.exit(1);
  }
  await new Promise((resolve) => setTimeout(resolve, 1));
}
console.log(`${child.pid} ${(performance.now() - began).toFixed(0)}`);
child.unref();
