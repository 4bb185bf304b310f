// SPDX-License-Identifier: Apache-2.0
// Out-of-band requests: what is refused and in what words, which answer comes first, and when
// reading stops; compared with a real daemon where order is no chance.

import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';

import { QMP_LIMITS } from '../../src/base/index.js';
import { createEngine } from '../../src/engine/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { QmpServer } from '../../src/qmp/index.js';
import { compare, hasReference, hello } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';

const helloOob = command('qmp_capabilities', { enable: ['oob'] });

const REQUESTS = [
  '{"exec-oob":"query-jobs","id":1}',
  '{"exec-oob":"nope","id":1}',
  '{"exec-oob":"qmp_capabilities","id":1}',
  '{"exec-oob":3,"id":1}',
  '{"exec-oob":null}',
  '{"exec-oob":"query-jobs","execute":"query-jobs","id":3}',
  '{"exec-oob":"query-jobs","control":1}',
  '{"exec-oob":"query-jobs","arguments":{"a":1}}',
  '{"exec-oob":"query-jobs","arguments":[]}',
  '{"exec-oob":"query-jobs"}',
  '{"execute":"query-jobs","exec-oob":7}',
  '{"execute":"query-jobs","id":{"a":[1.0,"x"]}}',
] as const;

describe.skipIf(!hasReference)('out of band, as a real daemon refuses it', () => {
  it('with the capability', () => compare(() => [helloOob, ...REQUESTS, helloOob, hello]));

  it('without it', () => compare(() => [hello, ...REQUESTS]));

  it('before negotiation, and after one that failed', () =>
    compare(() => [
      ...REQUESTS,
      command('qmp_capabilities', { enable: ['nope'] }),
      command('qmp_capabilities', { enable: 'oob' }),
      command('qmp_capabilities', { enable: ['oob', 'oob'] }),
      ...REQUESTS,
    ]));
});

interface Stage extends AsyncDisposable {
  readonly input: PassThrough;
  /** Ids of the answers so far. */
  ids(): unknown[];
  /** Lets commands run. */
  release(): void;
}

/** A session of an engine that is busy until it is released. */
async function busyStage(first: string): Promise<Stage> {
  const engine = await createEngine({ host: new MemoryHost() });
  const server = new QmpServer(engine);
  const [input, output] = [new PassThrough(), new PassThrough()];
  let said = '';
  output.on('data', (chunk: Buffer) => {
    said += chunk.toString('utf8');
  });
  server.serve({ input, output });
  input.write(first);
  await new Promise(setImmediate);
  let release = (): void => undefined;
  void engine.exclusive(
    () =>
      new Promise<void>((resolve) => {
        release = resolve;
      }),
  );
  await new Promise(setImmediate);
  return {
    input,
    ids: () => {
      const answers = said.trimEnd().split('\r\n').slice(2);
      return answers.map((line) => (JSON.parse(line) as { readonly id?: unknown }).id);
    },
    release: () => release(),
    async [Symbol.asyncDispose]() {
      release();
      await engine.close();
      await server.close();
    },
  };
}

const inBand = (id: number): string => command('query-jobs').replace('}', `, "id": ${id}}`);
const urgent = '{"exec-oob":"query-jobs","id":"urgent"}';

async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
}

describe('a session with a busy engine', () => {
  it('answers an out-of-band request ahead of eight waiting commands', async () => {
    await using stage = await busyStage(helloOob);
    const waiting = Array.from({ length: QMP_LIMITS.queuedCommands }, (_, id) => inBand(id));
    stage.input.write(waiting.join('') + urgent);
    await turns();
    expect(stage.ids()).toEqual(['urgent']);
    stage.release();
    await turns();
    expect(stage.ids()).toEqual(['urgent', 0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('looks at a request only when those before it run or wait', async () => {
    await using stage = await busyStage(helloOob);
    // One runs, eight wait, three and the urgent one are not looked at yet.
    const waiting = Array.from({ length: QMP_LIMITS.queuedCommands + 4 }, (_, id) => inBand(id));
    stage.input.write(waiting.join('') + urgent);
    await turns();
    expect(stage.ids()).toEqual([]);
    expect(stage.input.isPaused()).toBe(true);
    stage.release();
    await turns();
    // As a real daemon orders the answers to these thirteen.
    expect(stage.ids().indexOf('urgent')).toBe(4);
    expect(stage.ids().filter((id) => id !== 'urgent')).toEqual(waiting.map((_, id) => id));
    expect(stage.input.isPaused()).toBe(false);
  });

  it('keeps the order of all without the capability', async () => {
    await using stage = await busyStage(hello);
    stage.input.write(inBand(0) + inBand(1) + urgent + inBand(2));
    await turns();
    expect(stage.ids()).toEqual([]);
    stage.release();
    await turns();
    expect(stage.ids()).toEqual([0, 1, 'urgent', 2]);
  });

  it('reads by the capability that the same packet negotiates', async () => {
    await using stage = await busyStage(helloOob.replace('oob', 'nope'));
    stage.input.write(`${helloOob}${inBand(0)}${urgent}`);
    await turns();
    expect(stage.ids()).toEqual([undefined, 'urgent']);
    stage.release();
    await turns();
    expect(stage.ids()).toEqual([undefined, 'urgent', 0]);
  });
});
