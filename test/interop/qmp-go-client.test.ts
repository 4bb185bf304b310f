// SPDX-License-Identifier: Apache-2.0
// A QMP client that others wrote (go-qemu, as distributions package it) drives our server.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';

const go = peer('go');
const GOPATH = '/usr/share/gocode';
const hasLibrary = existsSync(join(GOPATH, 'src/github.com/digitalocean/go-qemu/qmp'));
const SOURCE = new URL('qmp-client.go', import.meta.url).pathname;
if (process.env['REQUIRE_PEERS'] === '1' && !hasLibrary) throw new Error('go-qemu is missing');

describe.skipIf(go === null || !hasLibrary)('a client written in Go', () => {
  let directory = '';
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'go-client-'));
    const cache = { GOCACHE: join(directory, 'cache'), GOPATH, GO111MODULE: 'off' };
    const env = { ...process.env, ...cache, GOTOOLCHAIN: 'local', GOFLAGS: '' };
    const program = join(directory, 'client');
    execFileSync(go as string, ['build', '-o', program, SOURCE], { cwd: directory, env });
  }, 300_000);
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('adds nodes, runs a mirror to its pivot, is refused, and hears every event', async () => {
    await using server = await startOwnDaemon(directory);
    const child = spawn(join(directory, 'client'), [server.path]);
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const heard: string[] = [];
    const until = async (start: string): Promise<string> => {
      for (;;) {
        const { value, done } = await lines.next();
        if (done === true) throw new Error(`ended before ${start}: ${heard.join('\n')}`);
        heard.push(value as string);
        if ((value as string).startsWith(start)) return value as string;
      }
    };
    const run = (execute: string, args: object = {}): void =>
      void child.stdin.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    expect(await until('version')).toBe('version 7 2');
    for (const name of ['source', 'target']) {
      run('blockdev-add', { driver: 'null-co', 'node-name': name, size: 1024 * 1024 });
      expect(await until('answer')).toBe('answer {"return": {}}');
    }
    const args = { 'job-id': 'm', device: 'source', target: 'target', sync: 'full' };
    run('blockdev-mirror', args);
    await until('event BLOCK_JOB_READY');
    run('blockdev-mirror', args);
    expect(await until('refused')).toBe('refused Need a root block node');
    run('query-block-jobs');
    expect(await until('answer {"return": [')).toContain('"ready": true');
    run('job-complete', { id: 'm' });
    await until('event JOB_STATUS_CHANGE {"id":"m","status":"null"}');
    const states = heard.flatMap((line) => /"status":"(\w+)"/.exec(line)?.[1] ?? []);
    expect(new Set(states)).toEqual(
      new Set(['created', 'running', 'ready', 'waiting', 'pending', 'concluded', 'null']),
    );
    child.kill('SIGKILL');
  });
});
