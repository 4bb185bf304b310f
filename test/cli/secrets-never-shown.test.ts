// SPDX-License-Identifier: Apache-2.0
// A secret goes wherever one may be given, rightly or not, and nothing that is printed, answered,
// told as an event or handed to another process has it: not as text, nor in base64 or hex, nor the
// keys that are made of it.
import { createCipheriv, pbkdf2Sync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { CipherSpec } from '../../src/crypto/index.js';
import { parseLuksHeader } from '../../src/crypto/luks/index.js';
import { CommandServer } from '../helpers/command-server.js';
import { inQcow2, makeLuks } from '../helpers/luks-images.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';
import { someOf } from '../helpers/seeds.js';

const XTS: CipherSpec = { cipher: 'aes-256', mode: 'xts', ivGenerator: 'plain64', ivHash: null };
/** Four of its words are typed wrong below, one is the password; all of them say `Planted`. */
const SECRET = 'Planted7Secret';
const BASE64 = Buffer.from(SECRET).toString('base64');
const WRAPPING = 'PlantedKey-PlantedKey-PlantedKey';
const IV = Buffer.alloc(16, 1).toString('base64');

/** What must not be seen, in lower case. */
const needles: string[] = [];
let wrapped = '';
let folder = '';
const server = new CommandServer({ env: { BLOCKWRIGHT_DEBUG: '1' } });

const at = (name: string): string => join(folder, name);

function hide(bytes: Uint8Array): void {
  const plain = Buffer.from(bytes);
  // Whatever stands before and behind it: letters that only its own bytes decide.
  for (const shift of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(shift), plain]).toString('base64');
    needles.push(text.slice(shift === 0 ? 0 : shift + 1, -4).slice(0, 16).toLowerCase());
  }
  needles.push(plain.toString('hex').slice(0, 24));
}

function expectHidden(said: string, where: string): void {
  const text = said.toLowerCase();
  for (const needle of ['planted', ...needles]) expect(text, where).not.toContain(needle);
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-shown-'));
  const { bytes, masterKey } = await makeLuks([SECRET], { spec: XTS });
  writeFileSync(at('a.luks'), bytes);
  writeFileSync(at('a.qcow2'), inQcow2(bytes));
  writeFileSync(at('plain'), new Uint8Array(65_536));
  writeFileSync(at('word'), SECRET);
  writeFileSync(at('word64'), BASE64);
  const cipher = createCipheriv('aes-256-cbc', WRAPPING, Buffer.from(IV, 'base64'));
  wrapped = Buffer.concat([cipher.update(SECRET), cipher.final()]).toString('base64');
  const [slot] = parseLuksHeader(bytes.subarray(0, 592), { detached: false }).keyslots;
  if (slot === undefined) throw new Error('a header has keyslots');
  hide(Buffer.from(SECRET));
  hide(Buffer.from(WRAPPING));
  hide(masterKey);
  hide(masterKey.subarray(32));
  hide(pbkdf2Sync(SECRET, slot.salt, slot.iterations, masterKey.length, 'sha256'));
});
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

const OPTS = ['--image-opts', 'driver=luks,key-secret=s,file.filename=a.luks'];

/** Each an option that makes a secret, or fails to. */
function objects(): string[][] {
  const key = `secret,id=k,data=${WRAPPING}`;
  const options = [
    `secret,id=s,data=${SECRET}`,
    `secret,id=s,data=${BASE64},format=base64`,
    'secret,id=s,file=word',
    'secret,id=s,file=word64,format=base64',
    `secret,id=s,data=${SECRET},format=base64,keyid=x`,
    `secret,id=s,data=-${SECRET},format=base64`,
    `secret,id=s,data=${SECRET},format=hex`,
    `secret,id=s,data=${SECRET},keyid=gone,iv=${IV}`,
    `secret,id=s,data=${SECRET},file=word`,
    `secret,id=s,data=${SECRET},foo=1`,
    `secret,id=s,data=${SECRET},loaded=off`,
    `secret,id=s,data=${SECRET},data=x`,
    `secret,id=s,data=${SECRET},=x`,
    `secret,id=s,data=${SECRET},help`,
    `secret,id=1,data=${SECRET}`,
    `secret,data=${SECRET}`,
    `secret,id=s,data.x=${SECRET}`,
    `secret,id=s,dta=${SECRET}`,
    `secrt,id=s,data=${SECRET}`,
    `throttle-group,id=s,data=${SECRET}`,
    `{"qom-type":"secret","id":"s","data":"${SECRET}"}`,
    `{"qom-type":"secret","id":"s","data":"${SECRET}"`,
    `{"qom-type":"secret","id":"s","data":"${SECRET}}`,
    `{"qom-type":"secret","id":"s","data":"${SECRET}"}}`,
    `{"qom-type":"secret","id":"s","data":"${SECRET}",}`,
    `{"qom-type":"secret","id":"s","data":["${SECRET}"]}`,
    `{"qom-type":"secret","id":"s","data":{"x":"${SECRET}"}}`,
    `{"qom-type":"secret","id":"s","data":"${SECRET}","foo":1}`,
    `{"qom-type":"secret","id":"s","data":"\\x${SECRET}"}`,
    `{"qom-type":"nope","id":"s","data":"${SECRET}"}`,
  ];
  return [
    ...options.map((option) => ['--object', option]),
    [`--object=secret,id=s,data=${SECRET},foo=1`],
    [`--objekt=secret,id=s,data=${SECRET}`],
    [`--o=secret,id=s,data=${SECRET}`],
    [`--force-share=secret,data=${SECRET}`],
    ['--object', `secret,id=s,data=${SECRET}`, '--object', `secret,id=s,data=${SECRET}x`],
    ['--object', key, '--object', `secret,id=s,data=${wrapped},format=base64,keyid=k,iv=${IV}`],
    ['--object', key, '--object', `secret,id=s,data=${BASE64},format=base64,keyid=k,iv=${IV}`],
    ['--object', key, '--object', `secret,id=s,data=${SECRET},keyid=k,iv=QUI=`],
    ['--object', `${key}x`, '--object', `secret,id=s,data=${wrapped},keyid=k,iv=${IV}`],
  ];
}

/** `S`: the secret; `O=FILE`: options that open the image with it. */
const LINES = [
  'img create -f luks S -o key-secret=s,iter-time=1 new.luks 64k',
  'img create -f luks S -o key-secret=s,iter-time=-1 new2.luks 64k',
  'img create -f qcow2 S -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1 new 64k',
  'img create -f qcow2 S -o encrypt.format=aes,encrypt.key-secret=s old 64k',
  'img info --output=json S --image-opts O=a.luks',
  'img info S --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=a.qcow2',
  'img check S --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=a.qcow2',
  'img map --output=json S --image-opts O=a.luks',
  'img convert S --image-opts -O raw O=a.luks out',
  'img convert -p S -f raw -O luks -o key-secret=s,iter-time=1 plain out.luks',
  'img compare S --image-opts O=a.luks O=gone',
  'img bench -c 1 S --image-opts O=a.luks',
  'img rebase -u S -b a.luks -F luks --image-opts O=a.luks',
  'img luks dump --output=json a.luks',
  'img luks test-passphrase S --secret s a.luks',
  'img luks test-passphrase S --secret s --keyslot 3 a.luks',
  'img luks test-passphrase --object secret,id=x,data=PlantedWrong --secret x a.luks',
  'img luks test-passphrase S --secret gone a.luks',
  'img luks header-backup S a.luks header',
  'img luks header-restore S header a.luks',
  'img amend S -o state=inactive,old-secret=w --object secret,id=w,data=PlantedW O=a.luks',
  'img amend S -o state=inactive,old-secret=s --image-opts O=a.luks',
  'img amend S -o state=active,new-secret=s,iter-time=1 --image-opts O=a.luks',
  'img amend S -o state=active,new-secret=s,keyslot=9 --image-opts O=a.luks',
  'img info --object secret,id=s,data=PlantedWrong --image-opts O=a.luks',
  'img check --object secret,id=s,data=PlantedWrong --image-opts O=a.luks',
  'img check S --image-opts driver=luks,key-secret=s,file.filename=plain',
  'img check S json:{"driver":"luks","key-secret":"s","file":{"filename":"a.luks"}}',
  'img map S json:{"driver":"luks","key-secret":"s","file.filename":"a.luks"}',
  'img map S json:{"driver":"luks","key-secret":"s"',
  'io S -c info -c map -c reopen -c help --image-opts O=a.luks',
];

const spelled = (line: string): string[] =>
  line
    .replace(' S ', ` --object secret,id=s,data=${SECRET} `)
    .replaceAll(' O=', ' driver=luks,key-secret=s,file.filename=')
    .split(' ');

describe('a secret is not shown', () => {
  it('by a command line that makes one, or fails to', () => {
    let worked = 0;
    for (const [index, object] of someOf(objects(), 2).entries()) {
      const lines = [
        ['img', 'measure', ...object, '-O', 'raw', ...OPTS],
        ['storage-daemon', ...object, '--blockdev', 'driver=nope'],
        ...(index % 8 === 0 ? [['io', ...object, '-c', 'read 0 512', ...OPTS]] : []),
      ];
      for (const line of lines) {
        const { out, err, status } = server.run(folder, line);
        expectHidden(out + err, line.join(' '));
        if (status === 0) worked += 1;
      }
    }
    expect(worked).toBeGreaterThan(4);
  });

  it('by what works on an image, or fails to', () => {
    let worked = 0;
    for (const line of LINES) {
      const { out, err, status } = server.run(folder, spelled(line));
      if (status === 0) worked += 1;
      expectHidden(out + err, line);
    }
    expect(worked).toBeGreaterThan(10);
    for (const name of readdirSync(folder)) {
      if (!['word', 'word64'].includes(name)) {
        expectHidden(readFileSync(at(name)).toString('latin1'), name);
      }
    }
  });

  it('by a monitor: answers, events, and what the daemon prints', async () => {
    await using daemon = await startProgramDaemon(folder);
    const monitor = createConnection(daemon.path);
    let said = '';
    monitor.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1');
    });
    const last = JSON.stringify({ execute: 'query-status', id: 'last' });
    monitor.write([...commands(), last].join('\n'));
    while (!said.includes('"last"')) await once(monitor, 'data');
    // All of it was understood: each is answered or refused, and some did what they say.
    expect(said.match(/"(return|error)":/g)).toHaveLength(commands().length + 1);
    for (const word of ['"JOB_STATUS_CHANGE"', '"n"', 'Invalid password', '"secret"']) {
      expect(said).toContain(word);
    }
    expectHidden(said, 'the monitor');
    expect(await daemon.end('SIGTERM')).toBe(0);
    expectHidden(daemon.complaint(), 'its standard error');
  });
});

const add = (id: string, more: object): object => ({
  execute: 'object-add',
  arguments: { 'qom-type': 'secret', id, ...more },
});

function additions(): object[] {
  const wrapping = { format: 'base64', keyid: 'k', iv: IV };
  return [
    add('s', { data: SECRET }),
    add('s', { data: `${SECRET}x` }),
    add('f', { file: at('word') }),
    add('b', { data: BASE64, format: 'base64' }),
    add('k', { data: WRAPPING }),
    add('w', { data: wrapped, ...wrapping }),
    add('wrong', { data: 'PlantedWrong' }),
    add('x1', { data: SECRET, format: 'base64', keyid: 's' }),
    add('x2', { data: BASE64, ...wrapping }),
    add('x3', { data: `!${SECRET}`, format: 'base64' }),
    add('x4', { data: SECRET, keyid: 's', iv: 'AA==' }),
    add('x5', { data: [SECRET] }),
    add('x6', { data: { x: SECRET } }),
    add('x7', { data: SECRET, file: at('word') }),
    add('x8', { data: SECRET, foo: SECRET.length }),
    add('1', { data: SECRET }),
    { execute: 'object-add', arguments: { id: 'x9', data: SECRET } },
    { execute: 'object-add', arguments: { 'qom-type': 'nope', id: 'x9', data: SECRET } },
    { execute: 'object-add', argument: { 'qom-type': 'secret', id: 'x9', data: SECRET } },
    { execute: 'object-ad', arguments: { 'qom-type': 'secret', id: 'x9', data: SECRET } },
  ];
}

/** Commands of a monitor, right and wrong. */
function commands(): string[] {
  const node = (name: string, secret: string, file = 'a.luks'): object => ({
    execute: 'blockdev-add',
    arguments: {
      driver: 'luks', 'node-name': name, 'key-secret': secret,
      file: { driver: 'file', filename: at(file) },
    },
  });
  const inside = (name: string, secret: string): object => ({
    execute: 'blockdev-add',
    arguments: {
      driver: 'qcow2', 'node-name': name, encrypt: { format: 'luks', 'key-secret': secret },
      file: { driver: 'file', filename: at('a.qcow2') },
    },
  });
  const amend = (id: string, options: object): object => ({
    execute: 'x-blockdev-amend',
    arguments: { 'job-id': id, 'node-name': 'n', options: { driver: 'luks', ...options } },
  });
  const get = (property: string): object => ({
    execute: 'qom-get', arguments: { path: '/objects/s', property },
  });
  const whole: object[] = [
    { execute: 'qmp_capabilities' },
    ...additions(),
    node('n', 's'),
    node('o', 'wrong'),
    node('o', 'gone'),
    node('o', 'w', 'plain'),
    inside('q', 'w'),
    inside('r', 'wrong'),
    amend('a', { state: 'active', 'new-secret': 'b', 'iter-time': 0 }),
    amend('c', { state: 'inactive', 'old-secret': 'wrong' }),
    { execute: 'query-named-block-nodes' },
    { execute: 'x-debug-query-block-graph' },
    { execute: 'query-jobs' },
    { execute: 'query-block-jobs' },
    { execute: 'query-block-exports' },
    { execute: 'qom-list', arguments: { path: '/objects' } },
    { execute: 'qom-list', arguments: { path: '/objects/s' } },
    ...['data', 'file', 'format', 'iv', 'keyid', 'loaded', 'type', 'nope'].map(get),
    { execute: 'qom-set', arguments: { path: '/objects/s', property: 'data', value: SECRET } },
    { execute: 'qom-set', arguments: { path: '/objects/s', property: 'nope', value: SECRET } },
    { execute: 'object-del', arguments: { id: 's' } },
    { execute: 'object-del', arguments: { id: 's' } },
  ];
  return [
    ...whole.map((each) => JSON.stringify(each)),
    JSON.stringify(add('y', { data: SECRET })).replace(/}}$/, '}]'),
    JSON.stringify(add('y', { data: SECRET })).replace('"data":', '"data" '),
    JSON.stringify(add('y', { data: SECRET })).replace(SECRET, `${SECRET}\\q`),
  ];
}
