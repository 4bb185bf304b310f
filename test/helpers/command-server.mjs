// SPDX-License-Identifier: Apache-2.0
// The built program answering one command line after another, so that a test of many lines pays
// for one start. Not proved here: arguments as bytes, standard input, signals and the end of the
// process, which tests of their own run processes for.
//
// A line of standard input is a request, {cwd, words}; a line of standard output its answer:
// {out, err, status, cpuSeconds, residentMiB}, the last being the highest so far. It loads the
// bundled commands that blockwright.js would load. What does not end kills it.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { loadChunk } from '../../src/cli/load-chunk.mjs';

const OUTPUT = new URL('../../dist/cli/', import.meta.url);
const HANG_MS = 50_000;

/** The chunk of a command, by the hash in its name that the entry knows. */
function load(command) {
  const entry = readFileSync(new URL('blockwright.js', OUTPUT), 'utf8');
  const [path] = new RegExp(`chunks/${command}-\\w+\\.js`).exec(entry);
  return loadChunk(fileURLToPath(new URL(path, OUTPUT)));
}

const RUNNERS = { img: 'runImg', io: 'runIo', 'storage-daemon': 'runStorageDaemon' };
const runners = new Map();

function runnerOf(command) {
  if (!runners.has(command)) runners.set(command, load(command)[RUNNERS[command]]);
  return runners.get(command);
}

async function answer({ cwd, words }) {
  const texts = { out: '', err: '' };
  const isNamed = words[0] === '--as';
  const [command, ...args] = isNamed ? words.slice(2) : words;
  const program = {
    name: isNamed ? words[1] : `blockwright ${command}`,
    out: (text) => void (texts.out += text),
    err: (text) => void (texts.err += text),
    terminal: false,
  };
  const before = process.cpuUsage();
  process.chdir(cwd);
  let status = 1;
  try {
    status = await runnerOf(command)(args, program);
  } catch (error) {
    texts.err += `blockwright: internal error: ${error.stack}\n`;
  }
  const { user, system } = process.cpuUsage(before);
  const residentMiB = highestResident();
  return { ...texts, status, cpuSeconds: (user + system) / 1e6, residentMiB };
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const watch = setTimeout(() => {
    process.stderr.write(`did not end: ${request.words.join(' ')}\n`);
    process.exit(1);
  }, HANG_MS);
  const text = JSON.stringify(await answer(request));
  clearTimeout(watch);
  process.stdout.write(`${text}\n`);
}

/** MiB; maxRSS would begin with what the process that started this one had in memory. */
function highestResident() {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(/VmHWM:\s*(\d+)/.exec(status)?.[1]) / 1024;
}
