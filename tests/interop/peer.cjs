// Loads artifacts with Transformers.js as its users do, and answers questions about them.
//
// Reads jobs from stdin as JSON, one a line, and writes an answer for each to stdout.

const { createInterface } = require("node:readline");
const path = require("node:path");
const transformers = require("@huggingface/transformers");

const OPTIONS = { dtype: "fp32", device: "cpu" };

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
  const model = await transformers[job.class].from_pretrained(local(job.folder), OPTIONS);
  const { input_ids: inputs, attention_mask } = job.inputs;
  const given = { inputs: tensor(inputs), attention_mask: tensor(attention_mask) };
  const tokens = await model.generate({ ...given, ...job.settings });
  return tokens.tolist().map((row) => row.map(Number));
}

/** What a pipeline says of texts. */
async function classify(job) {
  const classifier = await transformers.pipeline(job.pipeline, local(job.folder), OPTIONS);
  return classifier(job.texts, job.settings);
}

async function answerAll() {
  for await (const line of createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    const answer = await { generate, classify }[job.ask](job);
    console.log("answer " + JSON.stringify(answer));
  }
}

answerAll();
