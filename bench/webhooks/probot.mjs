// The smallest Probot app: verifies the signature, parses, calls an empty handler. It keeps nothing.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const from = createRequire(`${process.env.BENCH_MODULES}/package.json`);
const { run } = await import(pathToFileURL(from.resolve("probot")));
await run((app) => {
  app.on("ping", () => {});
});
