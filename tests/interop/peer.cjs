// Loads artifacts with Transformers.js as its users do, and answers questions about them.
//
// Reads jobs from stdin as JSON, one a line, and writes an answer for each to stdout.

const { createInterface } = require("node:readline");
const path = require("node:path");
const transformers = require("@huggingface/transformers");

/** Options of the loader: the dtype that the job names, or `null` for the one in config.json. */
function options({ dtype = "fp32" }) {
  const session_options = { intraOpNumThreads: 1, interOpNumThreads: 1 }; // the models are tiny
  return { device: "cpu", session_options, ...(dtype !== null && { dtype }) };
}

transformers.env.allowRemoteModels = false;

/** The name by which a folder is found: that of a model below `localModelPath`. */
function local(folder) {
  transformers.env.localModelPath = path.dirname(folder);
  return path.basename(folder);
}

function tensor(rows) {
  const values = BigInt64Array.from(rows.flat(), BigInt);
  return new transformers.Tensor("int64", values, [rows.length, rows[0].length]);
}

/** Tokens of `generate`. */
async function generate(job) {
  const model = await transformers[job.class].from_pretrained(local(job.folder), options(job));
  const { input_ids: inputs, attention_mask } = job.inputs;
  const given = { inputs: tensor(inputs), attention_mask: tensor(attention_mask) };
  const tokens = await model.generate({ ...given, ...job.settings });
  return tokens.tolist().map((row) => row.map(Number));
}

/** Outputs of one call of the model, by name. */
async function run(job) {
  const model = await transformers[job.class].from_pretrained(local(job.folder), options(job));
  const given = Object.fromEntries(Object.entries(job.inputs).map(([name, rows]) => [name, tensor(rows)]));
  const outputs = await model(given);
  return Object.fromEntries(job.outputs.map((name) => [name, outputs[name].tolist()]));
}

/** What a pipeline says of texts. */
async function classify(job) {
  const classifier = await transformers.pipeline(job.pipeline, local(job.folder), options(job));
  return classifier(job.texts, job.settings);
}

async function answerAll() {
  for await (const line of createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    const answer = await { generate, run, classify }[job.ask](job);
    console.log("answer " + JSON.stringify(answer));
  }
}

answerAll();
