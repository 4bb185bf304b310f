// SPDX-License-Identifier: Apache-2.0
// --image-opts and --object beside the real tools: the same is accepted, and what is refused is so
// in the same words.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { IoTwins } from '../helpers/io-twins.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';
import { IMAGE_OPTIONS, OBJECTS } from './image-options.js';

const qemuImg = peer('qemu-img') ?? '';
const qemuIo = peer('qemu-io') ?? '';
const COMMANDS = ['-c', 'length', '-c', 'read 0 512'];
const THROTTLED = 'driver=throttle,throttle-group=g,file.driver=qcow2,file.file.filename=a.qcow2';

let twins: IoTwins;

describe.skipIf(qemuImg === '' || qemuIo === '')('beside the real tools', () => {
  beforeAll(() => {
    twins = new IoTwins();
    writeFileSync(join(twins.root, 'first', 'a.raw'), Buffer.alloc(300 * 1024));
    twins.prepare(qemuImg, 'create', '-f', 'qcow2', 'a.qcow2', '1M');
    twins.prepare(qemuImg, 'create', '-f', 'qcow2', 'b.qcow2', '3M');
    twins.reset();
  });

  afterAll(() => twins.remove());

  it.each(someOf(IMAGE_OPTIONS, 9))('io answers the same to %s', (options) => {
    const args = [...COMMANDS, '--image-opts', options];
    expect(twins.shim('qemu-io', args)).toEqual(twins.real(qemuIo, args));
  });

  it.each(someOf(OBJECTS, 5))('io answers the same to --object %s', (object) => {
    const args = [...COMMANDS, '--object', object, 'a.qcow2'];
    expect(twins.shim('qemu-io', args)).toEqual(twins.real(qemuIo, args));
  });

  it('refuses an object before anything is made, compare with its own status', () => {
    for (const words of ['create -f qcow2 new 1M', 'compare a.qcow2 a.qcow2', 'check a.qcow2']) {
      const [verb = '', ...rest] = words.split(' ');
      const args = [verb, '--object', 'foo,id=x', ...rest];
      expect(twins.shim('qemu-img', args)).toEqual(twins.real(qemuImg, args));
    }
    expect(twins.differences(qemuImg)).toEqual([]);
  });

  it('a throttle group that is given so slows down what goes through it', () => {
    const object = 'throttle-group,id=g,limits.bps-write=400000';
    const writes = ['0', '64k', '128k', '192k'].flatMap((at) => ['-c', `write -q ${at} 64k`]);
    const args = ['--object', object, ...writes, '-c', 'info', '--image-opts', THROTTLED];
    const began = performance.now();
    const ours = twins.shim('qemu-io', args);
    expect(performance.now() - began).toBeGreaterThan(300);
    expect(ours).toEqual(twins.real(qemuIo, args));
    expect(twins.differences(qemuImg)).toEqual([]);
  });
});
