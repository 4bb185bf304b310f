// SPDX-License-Identifier: Apache-2.0
// Secrets as objects of an engine: held as long as the object, and by nobody else.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BlockError } from '../../../src/base/index.js';
import { DataCipher } from '../../../src/drivers/formats/qcow2/metadata/data-cipher.js';
import { Qcow2Node } from '../../../src/drivers/formats/qcow2/node.js';
import { createEngine } from '../../../src/engine/index.js';
import type { Engine } from '../../../src/engine/index.js';
import { makeSecret } from '../../../src/engine/secret-object.js';
import { errorOf, MemoryHost } from '../../helpers/graph.js';
import { KeyslotStage } from '../../helpers/keyslot-stage.js';
import { makeLuks, passwordBytes } from '../../helpers/luks-images.js';

const QOM = { 'qom-type': 'secret', id: 's' } as const;
const isWiped = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

let host: MemoryHost;
let engine: Engine;
beforeEach(async () => {
  host = new MemoryHost();
  host.putFile('f', passwordBytes('from a file'));
  engine = await createEngine({ host, lanes: 0 });
});

describe('a secret object', () => {
  it('gives copies, which are zeroes once it is wiped', async () => {
    const secret = (): never => expect.unreachable();
    const made = await makeSecret({ ...QOM, data: 'pw' }, { host, secret });
    const copy = made.data();
    copy.fill(0);
    expect(Buffer.from(made.data()).toString()).toBe('pw');
    made.wipe();
    expect(isWiped(made.data())).toBe(true);
    await engine.close();
  });

  it('cannot be wrapped by itself', async () => {
    const wrapped = { ...QOM, data: 'pw', keyid: 's', iv: 'AAAA' };
    const { message } = await errorOf(() => engine.objects.add(wrapped));
    expect(message).toBe("Secret with id 's' has no data");
    await engine.close();
  });

  it('leaves nothing of the file that it was read from', async () => {
    const read: Uint8Array[] = [];
    const readWhole = host.readWhole.bind(host);
    host.readWhole = async (path, most) => {
      const bytes = await readWhole(path, most);
      read.push(bytes);
      return bytes;
    };
    await engine.objects.add({ ...QOM, file: 'f' });
    const wrong = { ...QOM, id: 'wrong', file: 'f', format: 'base64' } as const;
    expect((await errorOf(() => engine.objects.add(wrong))).message).toContain('Base64');
    expect(Buffer.from(engine.objects.secret('s')).toString()).toBe('from a file');
    expect(read.map(isWiped)).toEqual([true, true]);
    await engine.close();
  });

  it('is not there any more when its engine was closed', async () => {
    await engine.objects.add({ ...QOM, data: 'pw' });
    await engine.close();
    expect(() => engine.objects.secret('s')).toThrow("No secret with id 's'");
  });

  it('whose file is still read when the engine closes is not added', async () => {
    const added = errorOf(() => engine.objects.add({ ...QOM, file: 'f' }));
    await engine.close();
    expect((await added).message).toBe('The engine is closed');
    expect(() => engine.objects.secret('s')).toThrow("No secret with id 's'");
  });
});

describe.each(['luks', 'qcow2'] as const)('a password of a keyslot: %s', (format) => {
  it.each([
    ['with NUL', 'QQBC'],
    ['that is not UTF-8', '//79'],
  ])('%s is refused, for nobody could open the image by it', async (_, data) => {
    const stage = new KeyslotStage(new MemoryHost(), format);
    await stage.start((await makeLuks(['one', 'two'])).bytes);
    const secret = { 'qom-type': 'secret', id: 'bad', data, format: 'base64' };
    await stage.run('object-add', secret);
    const text = 'Data from secret bad is not valid UTF-8';
    expect(await stage.amend({ state: 'active', 'new-secret': 'bad' })).toBe(text);
    expect(await stage.amend({ state: 'inactive', 'old-secret': 'bad' })).toBe(text);
    const node = { driver: 'luks', 'node-name': 'x', 'key-secret': 'bad', file: 'f' };
    const encrypt = { format: 'luks', 'key-secret': 'bad' };
    const inside = { driver: 'qcow2', 'node-name': 'x', encrypt, file: 'f' };
    await stage.run('blockdev-del', { 'node-name': 'l' });
    const opened = stage.run('blockdev-add', format === 'luks' ? node : inside);
    await expect(opened).rejects.toThrow(text);
    expect((await stage.onDisk()).slice(0, 3)).toEqual(['one', 'two', 'erased']);
    await stage.end();
  });
});

describe('the key of an encrypted qcow2 image', () => {
  afterEach(() => void vi.restoreAllMocks());

  it.each([
    ['is wiped where the open fails after it was taken out', true],
    ['is wiped when the node is closed, after a reopen as well', false],
  ])('%s', async (_, fails) => {
    const hold = vi.spyOn(DataCipher.prototype, 'hold');
    const broken = new BlockError('io', 'bitmaps that nobody can read');
    const load = vi.spyOn(Qcow2Node.prototype, 'loadBitmaps');
    if (fails) load.mockRejectedValueOnce(broken);
    const stage = new KeyslotStage(new MemoryHost(), 'qcow2');
    const started = stage.start((await makeLuks(['one'])).bytes);
    if (fails) await expect(started).rejects.toThrow('nobody can read');
    else await reopened(await started);
    const held = new Set(hold.mock.contexts as DataCipher[]);
    const keys = [...held].map((cipher) => cipher.rangeAt({ hostOffset: 0, guestOffset: 0 }).key);
    expect(keys.map(({ key }) => [key.length, isWiped(key)])).toEqual([[16, true]]);
    await stage.end();
  });

  async function reopened(stage: KeyslotStage): Promise<void> {
    const encrypt = { format: 'luks', 'key-secret': 'one' };
    const node = { driver: 'qcow2', 'node-name': 'l', encrypt, file: 'f', 'read-only': true };
    await stage.run('blockdev-reopen', { options: [node] });
    await stage.run('blockdev-del', { 'node-name': 'l' });
  }
});
