// SPDX-License-Identifier: Apache-2.0
// What hinders an encrypted image from being made is found before keys are derived: the host of
// these tests tells if it is asked for the rate of a calibration.
import { describe, expect, it } from 'vitest';

import { Permission } from '../../../src/base/index.js';
import { runImg } from '../../../src/cli/img/index.js';
import { MemoryHost } from '../../../src/host/index.js';

class WatchedHost extends MemoryHost {
  derivations = 0;
}

function watched(faults: ConstructorParameters<typeof MemoryHost>[0]): WatchedHost {
  const host = new WatchedHost(faults);
  Object.defineProperty(host, 'iterationsPerMs', {
    get() {
      host.derivations += 1;
      return 1;
    },
  });
  return host;
}

const KINDS = [
  { name: 'luks', words: ['-f', 'luks', '-o', 'key-secret=s,iter-time=1'] },
  {
    name: 'qcow2',
    words: ['-f', 'qcow2', '-o', 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1'],
  },
];

async function create(host: MemoryHost, words: readonly string[]) {
  const said: string[] = [];
  const say = (text: string): void => void said.push(text);
  const program = { name: 'img', out: say, err: say, terminal: false, host };
  const all = ['create', '-q', '--object', 'secret,id=s,data=x', ...words];
  return { status: await runImg(all, program), said: said.join('') };
}

describe.each(KINDS)('making an encrypted image: $name', ({ words }) => {
  it('derives no key for a path where nothing can be made', async () => {
    const host = watched({ faults: [{ operation: 'create', nth: 1, errno: 'EACCES' }] });
    const { status, said } = await create(host, [...words, '/a', '1M']);
    expect([status, said]).toEqual([1, "img: /a: Could not create '/a': Permission denied\n"]);
    expect([host.derivations, host.paths()]).toEqual([0, []]);
  });

  it('derives no key for a file that another has locked, and leaves it as it is', async () => {
    const host = watched({});
    const other = await host.createFile('/a');
    await other.truncate(4096);
    other.lock({ taken: Permission.write, unshared: Permission.resize });
    const { status, said } = await create(host, [...words, '/a', '1M']);
    expect(status).toBe(1);
    expect(said).toContain('Failed to get');
    expect(host.derivations).toBe(0);
    expect((await host.stat('/a'))?.size).toBe(4096);
    await other.close();
  });

  it('leaves no file behind where an option is refused', async () => {
    const host = watched({});
    const bad = words.map((word) => word.replace('key-secret=s', 'key-secret=t'));
    const { said } = await create(host, [...bad, '/a', '1M']);
    expect(said).toContain("No secret with id 't'");
    expect([host.derivations, host.paths()]).toEqual([0, []]);
  });
});
