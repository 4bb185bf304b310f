// SPDX-License-Identifier: Apache-2.0
// Character devices, compared with a real daemon line by line.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (id: string, type: string, data?: Line): string =>
  command('chardev-add', { id, backend: { type, ...(data === undefined ? {} : { data }) } });
const change = (id: string, type: string, data: Line = {}): string =>
  command('chardev-change', { id, backend: { type, data } });
const remove = (id: string): string => command('chardev-remove', { id });
const all = [command('query-chardev'), command('qom-list', { path: '/chardevs' })];

const unix = (path: string, more: Line = {}): Line => ({
  addr: { type: 'unix', data: { path } },
  ...more,
});
const inet = (port: string, more: Line = {}): Line => ({
  addr: { type: 'inet', data: { host: '127.0.0.1', port } },
  ...more,
});
const listening = { server: true, wait: false } as const;

/** In one order, without the monitor that the real daemon is spoken to on; ports are chance. */
function normal(line: Line): Line {
  const list = line['return'];
  const text = JSON.stringify(line).replaceAll(/127\.0\.0\.1:\d{4,}/g, '127.0.0.1:PORT');
  if (!Array.isArray(list)) {
    return JSON.parse(text.replaceAll(/"port":"\d{4,}"/g, '"port":"PORT"')) as Line;
  }
  const entries = (JSON.parse(text) as { return: { label?: string; name?: string }[] }).return;
  const named = entries.map((entry) => ({ key: entry.label ?? entry.name ?? '', entry }));
  return {
    return: named
      .filter(({ key }) => key !== 'monitor')
      .toSorted((left, right) => (left.key < right.key ? -1 : 1))
      .map(({ entry }) => entry),
  };
}

describe.skipIf(!hasReference)('as a real daemon keeps character devices', () => {
  it('adding, listing, changing and removing', () =>
    compare(
      (directory) => [
        hello,
        add('a', 'null', {}),
        add('a', 'null', {}),
        add('1', 'null', {}),
        add('type', 'null', {}),
        add('io', 'stdio', {}),
        add('io2', 'stdio', {}),
        remove('io'),
        add('b', 'nope', {}),
        add('b', 'null'),
        add('b', 'null', { nope: 1 }),
        add('b', 'null', { logappend: 'x' }),
        command('chardev-add', { id: 'b' }),
        command('chardev-add', { backend: { type: 'null', data: {} } }),
        add('r', 'ringbuf', { size: 16 }),
        add('m', 'memory', {}),
        ...[17, -1, -8, 3].map((size) => add('x', 'ringbuf', { size })),
        add('x', 'ringbuf', { size: 1.5 }),
        add('f', 'file', { out: join(directory, 'out') }),
        add('g', 'file', {}),
        add('g', 'file', { out: join(directory, 'no/out') }),
        add('g', 'file', { in: join(directory, 'no-in'), out: join(directory, 'out2') }),
        add('g', 'file', { in: join(directory, 'base.qcow2'), out: join(directory, 'out2') }),
        add('p', 'pipe', { device: join(directory, 'no-pipe') }),
        ...['vc', 'console', 'testdev', 'msmouse', 'braille', 'wctablet'].map((type) =>
          add('x', type, {}),
        ),
        add('x', 'spicevmc', { type: 'x' }),
        add('x', 'spiceport', { fqdn: 'x' }),
        add('x', 'dbus', { name: 'x' }),
        add('x', 'qemu-vdagent', {}),
        ...all,
        ...['r', 'f', 'a', 'nope'].map((id) => command('chardev-send-break', { id })),
        change('nope', 'null'),
        change('a', 'ringbuf', { size: 64 }),
        change('f', 'nope'),
        change('f', 'file', { out: join(directory, 'no/out') }),
        change('m', 'socket', unix(join(directory, 'c.sock'), listening)),
        ...all,
        ...['a', 'a', 'r', 'f', 'm', '1', 'nope', ''].map(remove),
        ...all,
        command('query-chardev', { x: 1 }),
      ],
      normal,
    ));

  it('sockets', () =>
    compare(
      (directory) => {
        const path = (name: string): string => join(directory, name);
        return [
          hello,
          add('u', 'socket', unix(path('u.sock'))),
          add('v', 'socket', unix(path('v.sock'), listening)),
          add('x', 'socket', unix(path('none.sock'), { server: false })),
          add('x', 'socket', unix(path('none.sock'), { server: false, wait: false })),
          add('x', 'socket', unix(path('none.sock'), { ...listening, reconnect: 3 })),
          add('x', 'socket', unix(path('no/x.sock'), listening)),
          add('x', 'socket', unix(path('t.sock'), { ...listening, 'tls-creds': 'nope' })),
          add('later', 'socket', unix(path('none.sock'), { server: false, reconnect: 60 })),
          add('i', 'socket', inet('0', listening)),
          add('later2', 'socket', inet('1', { server: false, reconnect: 60 })),
          command('qom-get', { path: 'later2', property: 'addr' }),
          add('x', 'socket', inet('x', listening)),
          add('x', 'socket', inet('1', { server: false })),
          add('x', 'socket', { addr: { type: 'fd', data: { str: '77' } }, ...listening }),
          add('x', 'socket', { addr: { type: 'nope', data: {} }, ...listening }),
          add('x', 'socket', { ...listening }),
          add('x', 'socket', { addr: { type: 'inet', data: { host: 'a', port: 1 } } }),
          // The other end of `v`, which nobody reads.
          add('w', 'socket', unix(path('v.sock'), { server: false })),
          ...all,
          ...['u', 'i', 'w', 'v'].map((id) =>
            command('qom-list', { path: `/chardevs/${id}` }),
          ),
          ...['u', 'i', 'w'].flatMap((id) =>
            ['addr', 'connected', 'type', 'nope'].map((property) =>
              command('qom-get', { path: `/chardevs/${id}`, property }),
            ),
          ),
          command('qom-set', { path: 'u', property: 'connected', value: false }),
          command('qom-set', { path: 'u', property: 'addr', value: {} }),
          ...['u', 'i', 'later', 'later2', 'w'].map(remove),
          ...all,
        ];
      },
      normal,
    ));

  it('ring buffers', () => {
    const write = (data: string, format?: string): string =>
      command('ringbuf-write', { device: 'r', data, ...(format === undefined ? {} : { format }) });
    const read = (size: number, format?: string): string =>
      command('ringbuf-read', { device: 'r', size, ...(format === undefined ? {} : { format }) });
    const encoded = ['aGVsbG//', 'aGVsbG8=', 'aGVsbG8', 'aGVs\nbG8=', '', '!!!', 'aGVs bG8='];
    return compare(() => [
      hello,
      add('r', 'ringbuf', { size: 16 }),
      add('n', 'null', {}),
      ...['n', 'nope', ''].flatMap((device) => [
        command('ringbuf-write', { device, data: 'x' }),
        command('ringbuf-read', { device, size: 1 }),
        command('ringbuf-read', { device, size: 0 }),
      ]),
      read(8),
      write('hello'),
      write('0123456789abcdefghij'),
      read(4),
      read(100),
      read(100),
      ...encoded.flatMap((text) => [write(text, 'base64'), read(100, 'base64')]),
      write('aGVsbG//', 'base64'),
      read(100),
      write('é\u0000x€'),
      read(2),
      read(100, 'utf8'),
      write('x', 'hex'),
      ...[0, -1].map((size) => read(size)),
      write('0123456789abcdef'),
      write('X'),
      read(100),
      write('0123456789abcdefY'),
      read(1),
      write('Z'),
      read(100),
    ]);
  });

  it('files are emptied or appended to', () =>
    compare((directory) => {
      const out = join(directory, 'said');
      writeFileSync(out, 'before');
      return [
        hello,
        add('a', 'file', { out, append: true }),
        command('blockdev-add', { driver: 'file', 'node-name': 'f', filename: out }),
        command('query-blockstats', { 'query-nodes': true }),
        remove('a'),
        add('a', 'file', { out }),
      ];
    }, normal));
});
