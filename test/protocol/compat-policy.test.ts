// SPDX-License-Identifier: Apache-2.0
// An engine that refuses or hides what is deprecated or unstable, as its QMP clients see it. The
// real storage daemon has no such option, so there is nothing to compare with.

import { PassThrough } from 'node:stream';
import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';

import { QmpClient } from '../../src/client/index.js';
import { createEngine } from '../../src/engine/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { QmpServer } from '../../src/qmp/index.js';
import type { SessionOptions } from '../../src/qmp/index.js';
import type { CompatPolicy } from '../../src/schema/index.js';

interface Stage extends AsyncDisposable {
  readonly client: QmpClient;
}

async function stage(
  compat: Partial<CompatPolicy>,
  options: SessionOptions = {},
): Promise<Stage> {
  const engine = await createEngine({ host: new MemoryHost(), compat });
  const server = new QmpServer(engine, options);
  const [input, output] = [new PassThrough(), new PassThrough()];
  server.serve({ input, output });
  const client = await QmpClient.over(Duplex.from({ readable: output, writable: input }));
  return {
    client,
    async [Symbol.asyncDispose]() {
      await client.close();
      await engine.close();
      await server.close();
    },
  };
}

const nullNode = { driver: 'null-co', 'node-name': 'n', size: 65_536 } as const;

describe('an engine with a policy', () => {
  it('does not have unstable commands', async () => {
    await using s = await stage({ unstableInput: 'reject' });
    await expect(s.client.executeAny('x-debug-query-block-graph')).rejects.toMatchObject({
      errorClass: 'CommandNotFound',
      message: expect.stringContaining('Unstable command x-debug-query-block-graph'),
    });
    expect(await s.client.execute('query-jobs')).toEqual([]);
  });

  it('refuses unstable parameters with nothing done', async () => {
    await using s = await stage({ unstableInput: 'reject' });
    const group = { 'qom-type': 'throttle-group', id: 'g', 'x-bps-total': 1 } as const;
    await expect(s.client.execute('object-add', group)).rejects.toMatchObject({
      errorClass: 'GenericError',
      message: expect.stringContaining('Unstable parameter x-bps-total disabled by policy'),
    });
    await expect(s.client.execute('object-del', { id: 'g' })).rejects.toThrow('not found');
  });

  it('refuses deprecated parameters where these are refused', async () => {
    const commit = { 'job-id': 'c', device: 'n', base: '/x' } as const;
    await using strict = await stage({ deprecatedInput: 'reject' });
    await strict.client.execute('blockdev-add', nullNode);
    await expect(strict.client.execute('block-commit', commit)).rejects.toThrow(
      'Deprecated parameter base disabled by policy',
    );
    await using mild = await stage({ unstableInput: 'reject' });
    await mild.client.execute('blockdev-add', nullNode);
    await expect(mild.client.execute('block-commit', commit)).rejects.not.toThrow('policy');
  });

  it('leaves deprecated members out of its answers', async () => {
    await using s = await stage({ deprecatedOutput: 'hide' });
    const schema = await s.client.execute('query-qmp-schema');
    const enums = schema.filter((entry) => entry['meta-type'] === 'enum');
    expect(enums.length).toBeGreaterThan(10);
    for (const entry of enums) {
      expect(entry).toHaveProperty('members');
      expect(entry).not.toHaveProperty('values');
    }
  });

  it('ends the program at what it must not meet', async () => {
    const crashes: unknown[] = [];
    await using s = await stage(
      { unstableInput: 'crash' },
      { crash: (error) => crashes.push(error) },
    );
    const asked = s.client.executeAny('x-debug-query-block-graph').catch(() => undefined);
    await s.client.execute('query-jobs');
    expect(String(crashes)).toContain('x-debug-query-block-graph disabled by policy');
    await s.client.close();
    await asked;
  });
});
