// Runs pytest in Pyodide, over the tests of modules that need no system.

import path from "node:path";

const modules = `
  agent backoff document flat fleet keys options render retrying terminal wire
`.trim().split(/\s+/);

const [directory] = process.argv.slice(2).map((each) => path.resolve(each));
const { loadPyodide } = await import(`${directory}/node_modules/pyodide/pyodide.mjs`);
const python = await loadPyodide();
for (const [place, root] of [["/site", `${directory}/site`], ["/src", process.cwd()]]) {
  python.FS.mkdirTree(place);
  python.FS.mount(python.FS.filesystems.NODEFS, { root }, place);
}
python.globals.set("modules", python.toPy(modules));
const status = python.runPython(`
import os, sys

print(f"Python {sys.version.split()[0]}, {sys.platform}")
sys.dont_write_bytecode = True
sys.path[:0] = ["/src", "/src/tests", "/src/tests/pyodide", "/site"]
os.chdir("/src")

import pytest

int(pytest.main([
    "-q", "-c", os.devnull, "--rootdir", "/src", "--noconftest", "-p", "plugin",
    "-p", "no:cacheprovider", "-W", "error", "--import-mode", "importlib",
    *(f"tests/test_{module}.py" for module in modules),
]))
`);
process.exit(status);
