// SPDX-License-Identifier: Apache-2.0
// The golden images, read through our own graph: the supported ones byte for byte, the others
// refused by name, the hostile ones in one clear line, and none of them changed.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BlockError, Permission } from '../../src/base/index.js';
import type { Graph, Node } from '../../src/block/index.js';
import { createEngine, type Engine } from '../../src/engine/index.js';
import { openDefaultHost } from '../../src/host/index.js';
import {
  type GoldenFolder,
  type GoldenImage,
  goldenImages,
  goldenSecret,
  unpackGolden,
} from '../helpers/golden.js';

const MIB = 1024 * 1024;
/** A hostile image may claim any size; this much of it is read. */
const HOSTILE_READ_BYTES = 4 * MIB;

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

let folder: GoldenFolder;
let engine: Engine;
beforeAll(async () => {
  folder = unpackGolden();
  engine = await createEngine({ host: openDefaultHost(), lanes: 0 });
  await engine.objects.add(goldenSecret);
});
afterAll(async () => {
  await engine.close();
  folder.remove();
});

const pathOf = (file: string): string => join(folder.path, file);

/** With its secret, where it has one. */
function nameOf({ file, secret }: Pick<GoldenImage, 'file' | 'secret'>, driver?: string): string {
  const path = pathOf(file);
  if (secret === undefined) return path;
  const options = { driver, [secret]: goldenSecret.id, file: { driver: 'file', filename: path } };
  return `json:${JSON.stringify(options)}`;
}

async function readAll(graph: Graph, node: Node, limit = Infinity): Promise<Uint8Array> {
  const permissions = { taken: Permission.consistentRead, shared: Permission.all };
  const backend = await graph.attach(node, 'golden test', permissions);
  try {
    const content = new Uint8Array(Math.min(node.length, limit));
    for (let offset = 0; offset < content.length; offset += MIB) {
      await backend.read(offset, content.subarray(offset, offset + MIB));
    }
    return content;
  } finally {
    await backend.detach();
  }
}

/** The error that `work` ends with, or null. */
async function refusalOf(work: () => Promise<unknown>): Promise<BlockError | null> {
  try {
    await work();
    return null;
  } catch (error) {
    if (error instanceof BlockError) return error;
    throw error;
  }
}

/** Opens, reads and closes; gives the content. */
async function readImage(image: Pick<GoldenImage, 'file' | 'format' | 'secret'>, limit?: number) {
  const format = image.secret === undefined ? image.format : null;
  const node = await engine.graph.openImage(nameOf(image, image.format), format, true);
  try {
    return await readAll(engine.graph, node, limit);
  } finally {
    await engine.graph.close(node);
  }
}

async function openAndClose(file: string, format: string, readOnly: boolean): Promise<void> {
  await engine.graph.close(await engine.graph.openImage(pathOf(file), format, readOnly));
}

describe('the golden images', () => {
  it('are those of the manifest, each with the digest it names', () => {
    const files = readdirSync(folder.path).sort();
    expect(files).toEqual(goldenImages.map(({ file }) => file).sort());
    for (const image of goldenImages) {
      expect(sha256(readFileSync(pathOf(image.file))), image.file).toBe(image.sha256);
    }
  });
});

describe('a supported golden image', () => {
  for (const image of goldenImages.filter(({ status }) => status === 'supported')) {
    it(`reads as its maker wrote it: ${image.file}, ${image.proves}`, async () => {
      const content = await readImage(image);
      expect(content.length).toBe(image.virtualSize);
      expect(sha256(content)).toBe(image.contentSha256);
    });
    it(`is recognised by its content: ${image.file}`, async () => {
      const node = await engine.graph.openImage(nameOf(image), null, true);
      const found = node.driver.name;
      await engine.graph.close(node);
      expect(found).toBe(image.format);
    });
    if (image.secret !== undefined) {
      it(`does not open without its secret: ${image.file}`, async () => {
        const open = () => openAndClose(image.file, image.format, true);
        const missing = "Parameter '(encrypt\\.)?key-secret' is required for cipher";
        expect((await refusalOf(open))?.message).toMatch(new RegExp(missing));
      });
    }
    if (image.format !== 'qcow2') continue;
    it(`is found clean by check: ${image.file}`, async () => {
      const name = nameOf(image, 'qcow2');
      const format = image.secret === undefined ? 'qcow2' : null;
      const node = await engine.graph.openImage(name, format, true, { inspectOnly: true });
      try {
        const result = await node.check('none');
        // Refcounts of the one with the dirty bit are behind.
        const found = { corruptions: result.corruptions, errors: result.checkErrors };
        if (image.file !== 'dirty.qcow2') expect(found).toEqual({ corruptions: 0, errors: 0 });
      } finally {
        await engine.graph.close(node);
      }
    });
    if (image.refusal === undefined) continue;
    it(`is refused read-write by name: ${image.file}`, async () => {
      const refusal = await refusalOf(() => openAndClose(image.file, 'qcow2', false));
      expect(refusal?.message.toLowerCase()).toContain(image.refusal?.toLowerCase());
    });
  }
});

describe('an unsupported golden image', () => {
  for (const image of goldenImages.filter(({ status }) => status === 'unsupported')) {
    it(`is refused by name: ${image.file}, ${image.proves}`, async () => {
      const refusal = await refusalOf(() => openAndClose(image.file, image.format, true));
      expect(refusal?.message.toLowerCase()).toContain(image.refusal?.toLowerCase());
      const writing = await refusalOf(() => openAndClose(image.file, image.format, false));
      expect(writing?.message.toLowerCase()).toContain(image.refusal?.toLowerCase());
    });
  }
  it('does not make its external data file', () => {
    expect(existsSync(pathOf('data-file.raw'))).toBe(false);
  });
});

describe('a hostile golden image', () => {
  for (const image of goldenImages.filter(({ status }) => status === 'hostile')) {
    it(`gets one clear line: ${image.file}, ${image.proves}`, async () => {
      const refusal = await refusalOf(async () => {
        await readImage(image, HOSTILE_READ_BYTES);
        await checkFinds(image.file);
      });
      expect(refusal, 'neither open, read nor check objects').not.toBeNull();
      // Names in it may hold anything: whoever prints it escapes control characters.
      expect(refusal?.message).toMatch(/^[^\r\n]+$/);
    }, 10_000);
  }
});

/** Throws when check finds the image wrong: an image may be readable and still be corrupt. */
async function checkFinds(file: string): Promise<void> {
  const node = await engine.graph.openImage(pathOf(file), 'qcow2', true, { inspectOnly: true });
  try {
    const { corruptions, checkErrors, messages } = await node.check('none');
    if (corruptions + checkErrors > 0) throw new BlockError('corrupt-image', messages[0] ?? '');
  } finally {
    await engine.graph.close(node);
  }
}

describe('after all that', () => {
  it('no golden image has changed, and nothing stays open', () => {
    for (const image of goldenImages) {
      expect(sha256(readFileSync(pathOf(image.file))), image.file).toBe(image.sha256);
    }
    expect([...engine.graph.nodes]).toEqual([]);
  });
});
