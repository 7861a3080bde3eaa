// Loads artifacts with Transformers.js in Chromium, from a server on this machine, and answers questions about them.
//
// Arguments: the browser, and the folder with Transformers.js and ONNX Runtime Web. Reads one JSON object from stdin:
// folders of exports by name, and jobs. Writes to stdout the answers, the requests to other hosts, and the files read.

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { chromium } = require("playwright-core");

const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".json": "application/json", ".wasm": "application/wasm" };

/** Serve `/modules/` and `/models/<name>/`, and an empty page; the isolation headers allow threads. */
function serve(roots, read) {
  const server = http.createServer((request, response) => {
    const address = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
    if (address === "/") {
      response.writeHead(200, { ...headers, "Content-Type": "text/html" });
      return response.end("<!doctype html><link rel=icon href=data:,>");
    }
    const root = Object.keys(roots).find((prefix) => address.startsWith(prefix));
    const file = root && path.join(roots[root], path.normalize("/" + address.slice(root.length)));
    if (!file || !fs.existsSync(file) || !fs.statSync(file).isFile()) {
      response.writeHead(404, headers);
      return response.end();
    }
    if (request.method !== "HEAD") read.push(address);
    const size = fs.statSync(file).size;
    response.writeHead(200, { ...headers, "Content-Type": TYPES[path.extname(file)] ?? "application/octet-stream", "Content-Length": size });
    if (request.method === "HEAD") return response.end();
    fs.createReadStream(file).pipe(response);
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

/** Runs in the page: the outputs of one call of a model, or the tokens that it generates. */
async function answer(job) {
  const transformers = await import("/modules/@huggingface/transformers/dist/transformers.min.js");
  transformers.env.allowRemoteModels = false;
  transformers.env.allowLocalModels = true; // false by default in browsers
  transformers.env.localModelPath = "/models/";
  transformers.env.backends.onnx.wasm.wasmPaths = "/modules/onnxruntime-web/dist/";
  const tensor = (rows) =>
    new transformers.Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0].length]);
  const given = Object.fromEntries(Object.entries(job.inputs).map(([name, rows]) => [name, tensor(rows)]));
  const model = await transformers[job.class].from_pretrained(job.model, job.options);
  try {
    if (job.ask === "generate") {
      const tokens = await model.generate({ ...given, ...job.settings });
      return tokens.tolist().map((row) => row.map(Number));
    }
    const outputs = await model(given);
    return outputs[job.output].tolist();
  } finally {
    await model.dispose();
  }
}

async function main([executablePath, modules]) {
  const { folders, jobs } = JSON.parse(fs.readFileSync(0, "utf-8"));
  const roots = { "/modules/": modules };
  for (const [name, folder] of Object.entries(folders)) roots[`/models/${name}/`] = folder;
  const found = { answers: [], outside: [], read: [] };
  const server = await serve(roots, found.read);
  const origin = `http://127.0.0.1:${server.address().port}`;
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    const page = await (await browser.newContext()).newPage();
    page.on("console", (message) => message.type() === "error" && console.error(message.text()));
    await page.route("**/*", (route) => {
      const address = route.request().url();
      if (address.startsWith(origin)) return route.continue();
      found.outside.push(address);
      return route.abort();
    });
    await page.goto(`${origin}/`);
    for (const job of jobs) found.answers.push(await page.evaluate(answer, job));
  } finally {
    await browser.close();
    server.close();
  }
  process.stdout.write(JSON.stringify(found));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
