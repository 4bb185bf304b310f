// SPDX-License-Identifier: Apache-2.0
// LUKS version 2 headers: which copy counts, and what is refused by one clear line.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockError } from '../../../src/base/index.js';
import { limitedDerive } from '../../../src/crypto/index.js';
import {
  limitedArgon2,
  readLuks2Header,
  unlockAny2,
} from '../../../src/crypto/luks2/index.js';
import type { Luks2Header } from '../../../src/crypto/luks2/index.js';
import { areaOf, luks2Bytes, luks2Text, spoilt } from '../../helpers/luks2-header.js';

const text = JSON.stringify(luks2Text());
const LIMIT = { image: 'x', limitSeconds: 60 } as const;

function read(bytes: Uint8Array): Promise<Luks2Header> {
  return readLuks2Header(areaOf(bytes), bytes.length);
}

async function refusal(bytes: Uint8Array): Promise<string> {
  try {
    await read(bytes);
  } catch (error) {
    if (error instanceof BlockError) return error.message;
    throw error;
  }
  return 'accepted';
}

describe('the copies of a LUKS version 2 header', () => {
  it('are read as they were written', async () => {
    const header = await read(luks2Bytes({ text, sequence: 5 }));
    expect(header).toMatchObject({
      uuid: '11111111-2222-4333-8444-555555555555',
      label: 'a label',
      sequence: 5,
      copies: { primary: 'valid', secondary: 'valid' },
      segment: { offset: 2_097_152, size: null, sectorBytes: 4096, vectorOffset: 0 },
      digest: { iterations: 1000, keyslots: [0, 1] },
    });
    expect(header.keyslots.map(({ number, areaOffset }) => [number, areaOffset])).toEqual([
      [0, 32_768],
      [1, 327_680],
    ]);
  });

  it('count by their sequence number', async () => {
    const newer = spoilt('segments.0.sector_size', 512);
    const bytes = luks2Bytes({ text, sequence: 5 }, { text: newer, sequence: 6 });
    expect((await read(bytes)).segment.sectorBytes).toBe(512);
    const older = luks2Bytes({ text, sequence: 7 }, { text: newer, sequence: 6 });
    expect((await read(older)).segment.sectorBytes).toBe(4096);
  });

  it.each([
    ['primary', 5000, { primary: 'broken', secondary: 'valid' }],
    ['primary (its magic)', 0, { primary: 'broken', secondary: 'valid' }],
    ['secondary', 16_384 + 5000, { primary: 'valid', secondary: 'broken' }],
  ])('stand for each other: the %s one is lost', async (_, at, copies) => {
    const bytes = luks2Bytes({ text });
    bytes[at] = (bytes[at] ?? 0) ^ 0x20;
    expect((await read(bytes)).copies).toEqual(copies);
  });

  it('are refused where the first is of a later version, which may say otherwise', async () => {
    for (const [version, words] of [[3, 'LUKS version 3 is'], [0, 'accepted']] as const) {
      const bytes = luks2Bytes({ text });
      bytes[7] = version;
      expect(await refusal(bytes)).toContain(words);
    }
  });

  it('may write numbers with zeroes in front, as others read them', async () => {
    const header = await read(luks2Bytes({ text: spoilt('segments.0.offset', '0002097152') }));
    expect(header.segment.offset).toBe(2_097_152);
  });

  it('are found where sizes are others', async () => {
    for (const headerBytes of [32_768, 65_536]) {
      const roomy = luks2Text(headerBytes);
      roomy['keyslots'] = {};
      (roomy['digests'] as Record<string, Record<string, unknown>>)['0']!['keyslots'] = [];
      const wish = { text: JSON.stringify(roomy), headerBytes };
      const bytes = luks2Bytes(wish);
      bytes[0] = 0;
      expect((await read(bytes)).copyBytes).toBe(headerBytes);
    }
  });

  it('are refused when both are lost, and when the file ends in them', async () => {
    const bytes = luks2Bytes({ text });
    bytes[5000] = 1;
    bytes[16_384 + 5000] = 1;
    expect(await refusal(bytes)).toContain('neither of its two copies');
    for (const length of [0, 7, 4096, 16_383]) {
      const cut = luks2Bytes({ text }).subarray(0, length);
      const words = await refusal(cut);
      expect(words).toContain('neither of its two copies');
      if (length < 4096) expect(words).toContain(`primary has only ${length} of 4096 bytes`);
    }
    expect(await refusal(luks2Bytes({ text }).subarray(0, 16_384))).toBe('accepted');
  });
});

const SPOILT: readonly (readonly [path: string, value: unknown, words: string])[] = [
  ['segments', {}, "'segments' is empty"],
  ['segments.1', { type: 'crypt' }, 'more than one segment'],
  ['segments.0.type', 'linear', "type 'linear' of segments.0 is not supported"],
  ['segments.0.integrity', { type: 'hmac' }, 'segments.0.integrity is not supported'],
  ['segments.0.sector_size', 1000, "'segments.0.sector_size' is no power of two: 1000"],
  ['segments.0.sector_size', 8192, "'segments.0.sector_size' must be from 512 to 4096, not 8192"],
  ['segments.0.sector_size', '512', "'segments.0.sector_size' must be from 512 to 4096"],
  ['segments.0.offset', '77', "'segments.0.offset' 77 is not in whole sectors"],
  ['segments.0.offset', '4096', 'its payload at 4096 overlaps the area of keyslots up to 1081344'],
  ['segments.0.offset', '-4096', "'segments.0.offset' is no offset or size"],
  ['segments.0.offset', '18446744073709551615', "'segments.0.offset' is no offset or size"],
  ['segments.0.offset', 4096, "'segments.0.offset' is not a text"],
  ['segments.0.size', '513', "'segments.0.size' 513 is not in whole sectors"],
  ['segments.0.iv_tweak', '9007199254740991', 'segments.0.iv_tweak 9007199254740991'],
  ['segments.0.size', '0', "'segments.0.size' is 0"],
  ['segments.0.encryption', '', "'segments.0.encryption' is empty"],
  ['segments.0.flags', 'x', "'segments.0.flags' is not a list of texts"],
  ['digests', {}, 'keyslot 0 belongs to no digest'],
  ['digests.0.segments', [], "no member of 'digests' is that of the segment"],
  ['digests.0.segments', ['0', '1'], "'digests.0.segments' names 1, which is not there"],
  ['digests.0.keyslots', ['0'], 'keyslot 1 belongs to no digest'],
  ['digests.0.keyslots', ['0', '1', '7'], "'digests.0.keyslots' names 7, which is not there"],
  ['digests.1', luks2Text()['digests'], "'digests.1.keyslots' is not a list"],
  ['tokens', 1.5, "'tokens' is not an object"],
  ['tokens.0', { type: 'x' }, "'tokens.0.keyslots' is not a list"],
  ['tokens.0', { type: 'x', keyslots: ['9'] }, "'tokens.0.keyslots' names 9, which is not there"],
  ['digests.0.type', 'x', "type 'x' of digests.0 is not supported"],
  ['digests.0.hash', 'md4', "digests.0.hash 'md4' is not supported"],
  ['digests.0.digest', 'AAAA', "'digests.0.digest' is not base64 of 20 to 32 bytes"],
  ['digests.0.iterations', 0, "'digests.0.iterations' must be from 1 to 2147483647, not 0"],
  ['digests.0.keyslots', ['x'], "'digests.0' has a name or reference that is no number"],
  ['keyslots', [], "'keyslots' is not an object"],
  ['keyslots.x', {}, "'keyslots' has a name or reference that is no number"],
  ['keyslots.0.key_size', -1, "'keyslots.0.key_size' must be from 0 to 4294967295, not -1"],
  ['keyslots.0.af.stripes', 1, "'keyslots.0.af.stripes' must be 4000, not 1"],
  ['keyslots.0.area.encryption', '', "'keyslots.0.area.encryption' is empty"],
  ['keyslots.0.area.encryption', undefined, "'keyslots.0.area.encryption' is not a text"],
  ['keyslots.0.area.type', 'journal', "keyslots.0.area has the type 'journal'"],
  ['keyslots.0.af.type', 'luks3', "keyslots.0.af has the type 'luks3'"],
  ['keyslots.0.area.size', '0', 'the area of keyslot 0 at 32768 is empty'],
  ['keyslots.0.area.offset', '0', 'the area of keyslot 0 at 0'],
  ['keyslots.0.area.offset', '4503599627370496', 'lies outside of 32768 to 1081344'],
  ['keyslots.0.area.offset', '32769', 'the area of keyslot 0 at 32769 is not aligned'],
  ['keyslots.0.area.size', '4096', 'the area of keyslot 0 at 32768 of 4096 bytes is too small'],
  ['keyslots.0.area.offset', '131072', 'overlaps that of keyslot 1'],
  ['keyslots.0.kdf.salt', '!', "'keyslots.0.kdf.salt' is not base64 of 8 to 64 bytes"],
  ['keyslots.0.kdf.salt', 'AAAAAAAAAAAAAAA', "'keyslots.0.kdf.salt' is not base64"],
  ['keyslots.0.kdf.iterations', 1000.5, "'keyslots.0.kdf.iterations' must be from 1 to"],
  ['keyslots.0.kdf.iterations', 2 ** 40, 'must be from 1 to 2147483647'],
  ['config.requirements', { mandatory: ['online-reencrypt-v2'] }, "requirement 'online-reencrypt"],
  ['config', undefined, "'config' is not an object"],
  ['config.requirements', 1.5, "'config.requirements' is not an object"],
  ['config.json_size', '16384', "'config.json_size' must be 12288, not 16384"],
  ['config.keyslots_size', '1048577', "'config.keyslots_size' 1048577 is no multiple of 4096"],
  ['config.keyslots_size', '1e3', "'config.keyslots_size' is no offset or size"],
];

describe('a LUKS version 2 header', () => {
  it.each(SPOILT)('is refused for %s = %j', async (path, value, words) => {
    const message = await refusal(luks2Bytes({ text: spoilt(path, value) }));
    expect(message).toMatch(/^LUKS2? header: /);
    expect(message).toContain(words);
    expect(message).not.toContain('\n');
  });

  it.each([
    ['{', 'its JSON text is broken'],
    ['{}', "'config' is not an object"],
    ['{} {}', 'its JSON text is broken'],
    ['{"config":{},"config":{}}', 'its JSON text is broken: JSON parse error, duplicate key'],
    [`{"x":${'['.repeat(3000)}`, 'its JSON text is broken'],
    ['[]', "its JSON text does not begin with '{'"],
    [' {}', "its JSON text does not begin with '{'"],
    ['', "its JSON text does not begin with '{'"],
    ['{}\0{}', 'something lies behind its JSON text of 2 bytes'],
  ])('is refused for the text %j', async (broken, words) => {
    expect(await refusal(luks2Bytes({ text: broken }))).toContain(words);
  });

  it('says nothing of a token whose description is no text, as others read it', async () => {
    const token = { type: 'luks2-keyring', keyslots: ['0'], key_description: 512 };
    const { tokens } = await read(luks2Bytes({ text: spoilt('tokens.0', token) }));
    expect(tokens).toMatchObject([{ type: 'luks2-keyring', keyDescription: null }]);
  });

  it('is refused for too many members, in no time', async () => {
    const headerBytes = 65_536;
    const many = luks2Text(headerBytes);
    const one = (many['keyslots'] as Record<string, unknown>)['0'];
    many['keyslots'] = Object.fromEntries(Array.from({ length: 33 }, (_, slot) => [slot, one]));
    const bytes = luks2Bytes({ text: JSON.stringify(many), headerBytes });
    expect(await refusal(bytes)).toContain("'keyslots' has more than 32 members");
  });

  it('is refused for a text of very many values before it is parsed', async () => {
    const headerBytes = 4_194_304;
    const many = { ...luks2Text(headerBytes), x: Array.from({ length: 200_000 }, () => 0) };
    const bytes = luks2Bytes({ text: JSON.stringify(many), headerBytes });
    expect(await refusal(bytes)).toMatch(/its JSON text has 2\d{5} members, more than 65536$/);
  });

  it('never fails but by one line, whatever its text', async () => {
    const member = fc.constantFrom(
      ...SPOILT.map(([path]) => path),
      'keyslots.0.kdf',
      'keyslots.1.area',
      'tokens',
      'keyslots.0.priority',
    );
    const values = fc.jsonValue({ maxDepth: 2 });
    await fc.assert(
      fc.asyncProperty(member, values, async (path, value) => {
        const message = await refusal(luks2Bytes({ text: spoilt(path, value) }));
        expect(message === 'accepted' || /^LUKS2? header: [^\n]+$/.test(message)).toBe(true);
      }),
      { numRuns: 200 },
    );
  });
});

describe('keyslots of LUKS version 2', () => {
  const tools = { derive: limitedDerive(LIMIT), argon2: limitedArgon2(LIMIT) };

  async function opened(path: string, value: unknown): Promise<string> {
    const bytes = luks2Bytes({ text: spoilt(path, value) });
    const header = await read(bytes);
    const { keyslots, digest } = header;
    const one = { ...header, digest: { ...digest, keyslots: [0] }, keyslots };
    try {
      const key = await unlockAny2({ area: areaOf(bytes), header: one }, Buffer.from('x'), tools);
      return key === null ? 'wrong password' : 'opened';
    } catch (error) {
      if (error instanceof BlockError) return error.message;
      throw error;
    }
  }

  it.each([
    ['type', 'reencrypt', "type 'reencrypt' of keyslots.0 is not supported"],
    ['kdf.type', 'scrypt', "keyslots.0.kdf 'scrypt' is not supported"],
    ['area.encryption', 'serpent-xts-plain64', "'serpent-xts-plain64' with a key of 64 bytes"],
    ['area.key_size', 16, "'aes-xts-plain64' with a key of 16 bytes is not supported"],
    ['key_size', 512, 'keyslots.0.key_size 512 is not supported'],
    ['af.hash', 'whirlpool', "keyslots.0.af.hash 'whirlpool' is not supported"],
  ])('that cannot be used say why: %s', async (member, value, words) => {
    expect(await opened(`keyslots.0.${member}`, value)).toContain(words);
  });

  it('are refused when Argon2 wants more memory or time than there may be', async () => {
    const salt = 'AAAAAAAAAAAAAAAAAAAAAA==';
    const kdf = { type: 'argon2id', time: 4, memory: 4096, cpus: 1, salt };
    const huge = await opened('keyslots.0.kdf', { ...kdf, memory: 4_194_304 });
    expect(huge).toContain('keyslots.0.kdf.memory 4194304 (KiB, more than 1048576)');
    const passes = { memory: 1_048_576, time: 2 ** 31 - 1 };
    const endless = await opened('keyslots.0.kdf', { ...kdf, ...passes });
    expect(endless).toMatch(/^Unlocking 'x' would take about \d+ s with 2147483647 passes/);
  });

  it('by PBKDF2 that want more time are refused as well', async () => {
    const message = await opened('keyslots.0.kdf.iterations', 2 ** 31 - 1);
    expect(message).toMatch(/^Unlocking 'x' would take about \d+ s/);
  });

  it('by Argon2 heed a limit that is lower than usual', async () => {
    const argon2 = limitedArgon2({ image: 'x', limitSeconds: 1 });
    const salt = new Uint8Array(16);
    const wish = { type: 'argon2id', password: salt, salt, passes: 40, length: 32 } as const;
    await expect(argon2({ ...wish, memoryKib: 1_048_576, lanes: 1 })).rejects.toThrow(
      /would take about \d+ s with 40 passes .* more than the 1 s of 'key-derivation-limit'$/,
    );
  });

  it('that wait for their turn end with their signal, before it comes', async () => {
    const [first, second] = [new AbortController(), new AbortController()];
    const salt = new Uint8Array(16);
    const kind = { type: 'argon2id', password: salt, salt, lanes: 1, length: 32 } as const;
    const wish = { ...kind, passes: 30, memoryKib: 65_536 };
    const ended: string[] = [];
    const runs = [first, second].map(({ signal }, index) =>
      limitedArgon2({ ...LIMIT, signal })(wish).catch(() => void ended.push(`${index}`)),
    );
    second.abort();
    await runs[1];
    expect(ended).toEqual(['1']);
    first.abort();
    await runs[0];
    expect(ended).toEqual(['1', '0']);
  });

  it('end with their signal', async () => {
    const ending = new AbortController();
    const argon2 = limitedArgon2({ ...LIMIT, signal: ending.signal });
    const salt = new Uint8Array(16);
    const wish = { type: 'argon2id', password: salt, salt, passes: 30, memoryKib: 65_536 } as const;
    const derived = argon2({ ...wish, lanes: 1, length: 32 });
    setImmediate(() => ending.abort());
    await expect(derived).rejects.toMatchObject({ kind: 'cancelled' });
  });
});
