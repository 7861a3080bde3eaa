// Opens a page in Chromium, in light and dark, wide and narrow, with and without scripts, and reports what it finds.
//
// Arguments: the browser, the page, and optionally a folder for screenshots. Writes JSON to stdout.

const fs = require("node:fs");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const { chromium } = require("playwright-core");
const { source: axe } = require("axe-core");

const VIEWS = [
  { name: "light", colorScheme: "light", viewport: { width: 1280, height: 900 } },
  { name: "dark", colorScheme: "dark", viewport: { width: 1280, height: 900 } },
  { name: "narrow", colorScheme: "light", viewport: { width: 360, height: 740 } },
  { name: "narrow-dark", colorScheme: "dark", viewport: { width: 360, height: 740 } },
];

async function open(browser, view, address, found) {
  // axe-core is put into the page, which the page's own policy would refuse.
  const context = await browser.newContext({ ...view, bypassCSP: found.bypass, javaScriptEnabled: found.scripts });
  const page = await context.newPage();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) found.console.push(message.text());
  });
  page.on("pageerror", (error) => found.console.push(String(error)));
  page.on("dialog", (dialog) => {
    found.console.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("request", (request) => {
    if (request.url() !== address) found.requests.push(request.url());
  });
  await page.goto(address);
  return page;
}

/** Serious and critical barriers, with everything that can be folded open. */
async function barriers(page) {
  await page.evaluate(() => document.querySelectorAll("details").forEach((part) => (part.open = true)));
  await page.evaluate(axe);
  const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return result.violations
    .filter((violation) => ["serious", "critical"].includes(violation.impact))
    .map((violation) => `${violation.id}: ${violation.help}: ${violation.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)).join(" | ")}`);
}

async function table(page) {
  const rows = () => page.$$eval("table.sortable tbody tr:not([hidden])", (all) => all.map((row) => row.cells[0].textContent.trim()));
  if ((await page.$("table.sortable")) === null) return null;
  const found = { first: await rows() };
  await page.click("table.sortable th:nth-child(6) button");
  found.bySize = await rows();
  await page.click("table.sortable th:nth-child(6) button");
  found.bySizeDescending = await rows();
  found.sorted = await page.getAttribute("table.sortable th:nth-child(6)", "aria-sort");
  await page.fill("#filter-text", "FAIL");
  found.filtered = await rows();
  await page.fill("#filter-text", "");
  if ((await page.$("#filter-verdict option[value=failed]")) === null) return found;
  await page.selectOption("#filter-verdict", "failed");
  found.failed = await rows();
  return found;
}

async function main([executablePath, file, pictures]) {
  const address = pathToFileURL(path.resolve(file)).href;
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  const report = { console: [], requests: [], barriers: {}, overflow: {} };
  try {
    for (const view of VIEWS) {
      const page = await open(browser, view, address, Object.assign(report, { bypass: true, scripts: true }));
      report.overflow[view.name] = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (pictures) await page.screenshot({ path: path.join(pictures, `${view.name}.png`) });
      report.barriers[view.name] = await barriers(page);
    }
    const page = await open(browser, VIEWS[0], address, Object.assign(report, { bypass: false, scripts: true }));
    report.title = await page.title();
    report.table = await table(page);
    const plain = await open(browser, VIEWS[0], address, Object.assign(report, { bypass: false, scripts: false }));
    report.values = await plain.$$eval("data", (all) => all.map((one) => one.value));
    await plain.$$eval("details", (all) => all.forEach((one) => (one.open = true)));
    report.text = (await plain.innerText("main")).replace(/\s+/g, " ");
  } finally {
    await browser.close();
  }
  fs.writeSync(1, JSON.stringify(report));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
