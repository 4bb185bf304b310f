// SPDX-License-Identifier: Apache-2.0
// Re-creates the golden images with the real tools and writes manifest.json.
//
//   node images/generate.mjs                 makes every image anew (needs qemu-img, qemu-io,
//                                            cryptsetup); LUKS keys and snapshot dates differ
//   node images/generate.mjs --only FILE...  makes these alone; what they need must be stored
//   node images/generate.mjs --unpack DIR    unpacks the stored images into DIR
//
// Images are stored gzipped, since qcow2 files are mostly zeroes; every sha256 is that of the
// unpacked file. Commands run inside one folder, so that backing names are relative.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, statSync,
  truncateSync, writeFileSync, writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { HOSTILE, SUPPORTED, UNSUPPORTED } from './recipes.mjs';

const FOLDER = new URL('.', import.meta.url).pathname;

function unpack(target) {
  mkdirSync(target, { recursive: true });
  for (const name of readdirSync(FOLDER).filter((entry) => entry.endsWith('.gz'))) {
    writeFileSync(join(target, name.slice(0, -3)), gunzipSync(readFileSync(join(FOLDER, name))));
  }
}

const RECIPES = [
  ...SUPPORTED.map((recipe) => ({ status: 'supported', ...recipe })),
  ...UNSUPPORTED.map((recipe) => ({ status: 'unsupported', ...recipe })),
  ...HOSTILE.map((recipe) => ({ status: 'hostile', ...recipe })),
];

function generateOnly(files) {
  const work = mkdtempSync(join(tmpdir(), 'golden-'));
  try {
    unpack(work);
    for (const file of files) rmSync(join(work, file), { force: true });
    writeFileSync(join(work, 'key'), 'golden');
    const path = join(FOLDER, 'manifest.json');
    const manifest = JSON.parse(readFileSync(path, 'utf8'));
    for (const recipe of RECIPES.filter(({ file }) => files.includes(file))) {
      const entry = make(work, recipe);
      manifest.images = manifest.images.map((old) => (old.file === entry.file ? entry : old));
      store(work, entry.file);
    }
    writeFileSync(path, `${JSON.stringify(manifest, null, 2)}\n`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function store(work, file) {
  const bytes = readFileSync(join(work, file));
  writeFileSync(join(FOLDER, `${file}.gz`), gzipSync(bytes, { level: 9 }));
}

function generate() {
  const work = mkdtempSync(join(tmpdir(), 'golden-'));
  try {
    writeFileSync(join(work, 'key'), 'golden');
    const entries = RECIPES.map((recipe) => make(work, recipe));
    for (const name of readdirSync(FOLDER)) {
      if (name.endsWith('.gz')) rmSync(join(FOLDER, name));
    }
    for (const { file } of entries) store(work, file);
    const manifest = { tools: toolVersions(), images: entries };
    writeFileSync(join(FOLDER, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function toolVersions() {
  return Object.fromEntries(
    ['qemu-img', 'qemu-io', 'cryptsetup'].map((tool) => {
      const [line] = execFileSync(tool, ['--version'], { encoding: 'utf8' }).split('\n');
      return [tool, line.replace(/\s*\(.*\)/, '')];
    }),
  );
}

/** Runs a recipe and gives its manifest entry. */
function make(work, recipe) {
  for (const command of recipe.commands) run(work, command);
  const { file, format, status, proves } = recipe;
  const bytes = readFileSync(join(work, file));
  const entry = { file, format, status, proves, commands: recipe.commands };
  if (recipe.needs !== undefined) entry.needs = recipe.needs;
  if (recipe.refusal !== undefined) entry.refusal = recipe.refusal;
  if (recipe.secret !== undefined) entry.secret = recipe.secret;
  if (recipe.readOnlyWorks !== undefined) entry.readOnlyWorks = recipe.readOnlyWorks;
  entry.bytes = bytes.length;
  entry.sha256 = sha256(bytes);
  if (status !== 'hostile') Object.assign(entry, contentFacts(work, recipe));
  return entry;
}

function contentFacts(work, { file, format, secret: option }) {
  const content = join(work, 'content.raw');
  const options = `driver=${format},file.filename=${file},${option}=key`;
  const source = option === undefined ? ['-f', format, file] : ['--image-opts', options];
  const secret = ['--object', 'secret,id=key,file=key'];
  execFileSync('qemu-img', ['convert', ...secret, '-O', 'raw', ...source, 'content.raw'], {
    cwd: work,
  });
  const facts = {
    virtualSize: statSync(content).size,
    contentSha256: sha256(readFileSync(content)),
  };
  rmSync(content);
  return facts;
}

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** A command is one line: words, '…' quoting, and the built-in verbs of BUILT_IN. */
function run(work, command) {
  const words = [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare);
  const [program, ...args] = words;
  const builtIn = BUILT_IN[program];
  if (builtIn !== undefined) return builtIn(work, ...args);
  for (let attempt = 0; ; attempt += 1) {
    try {
      execFileSync(program, args, { cwd: work, stdio: ['ignore', 'ignore', 'pipe'] });
      return undefined;
    } catch (error) {
      // `abort` in qemu-io ends by a signal: that is the point of the command.
      if (error.signal === 'SIGABRT') return undefined;
      // A busy machine upsets the reference's calibration of key iterations.
      if (attempt === 20 || !String(error.stderr).includes('CPU usage')) throw error;
    }
  }
}

const LUKS2_COPY = 16384;
const copiesOf = (bytes) => [0, 1].map((each) => {
  return bytes.subarray(each * LUKS2_COPY, (each + 1) * LUKS2_COPY);
});

const BUILT_IN = {
  /** poke FILE OFFSET HEX: overwrites bytes. */
  poke(work, file, offset, hex) {
    const descriptor = openSync(join(work, file), 'r+');
    writeSync(descriptor, Buffer.from(hex, 'hex'), 0, hex.length / 2, Number(offset));
    closeSync(descriptor);
  },
  /** pattern FILE LENGTH SEED: bytes that do not compress, the same on every machine. */
  pattern(work, file, length, seed) {
    const bytes = new Uint8Array(Number(length));
    let state = Number(seed) >>> 0;
    for (let index = 0; index < bytes.length; index += 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      bytes[index] = state >>> 24;
    }
    writeFileSync(join(work, file), bytes);
  },
  /** zero FILE OFFSET LENGTH */
  zero(work, file, offset, length) {
    BUILT_IN.poke(work, file, offset, '00'.repeat(Number(length)));
  },
  /** retext FILE OLD NEW: in the JSON text of both copies of a LUKS version 2 header. */
  retext(work, file, old, other) {
    const bytes = readFileSync(join(work, file));
    for (const copy of copiesOf(bytes)) {
      const area = copy.subarray(4096);
      const text = area.toString('utf8', 0, area.indexOf(0));
      if (!text.includes(old)) throw new Error(`${file} does not say ${old}`);
      area.fill(0);
      area.write(text.replaceAll(old, other));
    }
    writeFileSync(join(work, file), bytes);
  },
  /** seal FILE: makes the checksums of both copies right. */
  seal(work, file) {
    const bytes = readFileSync(join(work, file));
    for (const copy of copiesOf(bytes)) {
      copy.fill(0, 448, 512);
      copy.set(createHash('sha256').update(copy).digest(), 448);
    }
    writeFileSync(join(work, file), bytes);
  },
  cp(work, from, to) {
    writeFileSync(join(work, to), readFileSync(join(work, from)));
  },
  truncate(work, file, size) {
    closeSync(openSync(join(work, file), 'a'));
    truncateSync(join(work, file), Number(size));
  },
};

const [mode, ...words] = process.argv.slice(2);
if (mode === '--unpack') unpack(words[0] ?? '.');
else if (mode === '--only') generateOnly(words);
else generate();
