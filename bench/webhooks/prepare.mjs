// node prepare.mjs FOLDER: makes the App's key (app.pem) and bodies with their signatures for wrk (bodies.lua).
import { generateKeyPairSync } from "node:crypto";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const from = createRequire(`${process.env.BENCH_MODULES}/package.json`);
const { Webhooks } = await import(pathToFileURL(from.resolve("@octokit/webhooks")));
const webhooks = new Webhooks({ secret: process.env.WEBHOOK_SECRET });

const { privateKey } = generateKeyPairSync("rsa", {
  modulusLength: 2048,
  privateKeyEncoding: { type: "pkcs1", format: "pem" },
  publicKeyEncoding: { type: "pkcs1", format: "pem" },
});
writeFileSync(`${folder}/app.pem`, privateKey, { mode: 0o600 });

// An App's ping ("Webhook events and payloads", ping).
const ping = (n) =>
  JSON.stringify({
    zen: "Keep it logically awesome.",
    hook_id: 1000 + n,
    hook: {
      type: "App",
      id: 1000 + n,
      name: "web",
      active: true,
      events: ["check_run", "check_suite", "issue_comment", "merge_group", "pull_request", "push", "repository"],
      config: { content_type: "json", insecure_ssl: "0", secret: "********", url: "https://ci.example.com/webhooks" },
      updated_at: "2026-01-01T00:00:00Z",
      created_at: "2026-01-01T00:00:00Z",
      app_id: 1,
      deliveries_url: "https://api.github.com/app/hook/deliveries",
    },
  });

let lua = "return {\n";
for (let n = 0; n < 16; n++) {
  const body = ping(n);
  lua += `  { body = [==[${body}]==], signature = "${await webhooks.sign(body)}" },\n`;
}
writeFileSync(`${folder}/bodies.lua`, lua + "}\n");
