// SPDX-License-Identifier: Apache-2.0
// Numbers, JSON and human texts as the reference prints them.
import { expect, test } from 'vitest';

import { BlockError } from '../../../src/base/index.js';
import type { CheckResult } from '../../../src/block/index.js';
import { checkJson, checkText } from '../../../src/cli/img/check.js';
import { createFormat, OptionValues } from '../../../src/cli/img/create/options.js';
import { infoText } from '../../../src/cli/img/info/text.js';
import { percent, sizeArgument } from '../../../src/cli/img/numbers.js';
import { CliError, reportFailure } from '../../../src/cli/program.js';
import { writeJson } from '../../../src/wire/index.js';

test('JSON is indented by four and escapes everything but plain ASCII', () => {
  expect(writeJson({ a: [1, { b: 'x' }], c: true }, { pretty: true })).toBe(
    '{\n    "a": [\n        1,\n        {\n            "b": "x"\n        }\n    ],\n' +
      '    "c": true\n}',
  );
  expect(writeJson('\u001b\n"é', { pretty: true })).toBe('"\\u001B\\n\\"\\u00E9"');
});

test('an exact half percent is rounded to the even digit', () => {
  expect(percent(17, 160)).toBe('10.62');
  expect(percent(1, 3)).toBe('33.33');
  expect(percent(16, 16)).toBe('100.00');
});

test('sizes beyond any file offset are refused with the limit', () => {
  expect(sizeArgument('image size', '1.5k')).toBe(1536);
  expect(() => sizeArgument('image size', '16E')).toThrow(
    'Invalid image size specified. Must be between 0 and 9223372036854775807.',
  );
  expect(() => sizeArgument('image size', '1x')).toThrow('You may use k, M, G, T, P or E');
});

const CLEAN: CheckResult = {
  corruptions: 0,
  leaks: 0,
  checkErrors: 0,
  corruptionsFixed: 0,
  leaksFixed: 0,
  totalClusters: 160,
  allocatedClusters: 17,
  fragmentedClusters: 0,
  compressedClusters: 0,
  imageEndOffset: 1_441_792,
  messages: [],
};

test('a check prints its counters and leaves out those that are zero', () => {
  expect(checkText(CLEAN)).toBe(
    'No errors were found on the image.\n' +
      '17/160 = 10.62% allocated, 0.00% fragmented, 0.00% compressed clusters\n' +
      'Image end offset: 1441792\n',
  );
  expect(Object.keys(JSON.parse(checkJson(CLEAN, 'a', 'qcow2')) as object)).toEqual([
    'image-end-offset',
    'total-clusters',
    'check-errors',
    'allocated-clusters',
    'filename',
    'format',
  ]);
});

test('control bytes of names are escaped in human output', () => {
  const lines = infoText({
    'virtual-size': 512,
    filename: 'a\u001b[2J',
    format: 'raw',
    'backing-filename': 'b\nc',
    'dirty-flag': false,
  });
  const text = [...lines].join('');
  expect(text).toContain('image: a\\x1b[2J\n');
  expect(text).toContain('backing file: b\\x0ac (cannot determine actual path)\n');
});

function qcow2Values(...lists: string[]): OptionValues {
  const format = createFormat('qcow2');
  if (format === null) throw new Error('qcow2 is a format');
  const values = new OptionValues(format);
  for (const list of lists) values.parse(list);
  return values;
}

test('create options are printed in one order whatever order they came in', () => {
  const values = qcow2Values('lazy_refcounts,backing_file=a,,b,cluster_size=4k', 'size=1M');
  expect(values.describe()).toBe(
    ' cluster_size=4096 extended_l2=off compression_type=zlib size=1048576 ' +
      'backing_file=a,,b lazy_refcounts=on refcount_bits=16',
  );
});

test('create options become members, by the names of blockdev-create', () => {
  expect(qcow2Values('encrypt.format=luks,cluster_size=4k,data_file_raw=on').members()).toEqual({
    'encrypt.format': 'luks',
    'cluster-size': 4096,
    'data-file-raw': true,
  });
});

test('field and value are left out under a name that scripts know', () => {
  const error = new BlockError('corrupt-image', 'Image is too big (size 7)', { detail: 'size 7' });
  const wrapped = new CliError(`Could not open 'x': ${error.message}`, 1, error);
  const said = (name: string, thrown: unknown): string => {
    let text = '';
    const err = (more: string): void => void (text += more);
    reportFailure({ name, err, out: err, terminal: false }, thrown);
    return text;
  };
  expect(said('qemu-img', error)).toBe('qemu-img: Image is too big\n');
  expect(said('qemu-img', wrapped)).toBe("qemu-img: Could not open 'x': Image is too big\n");
  expect(said('blockwright img', error)).toBe('blockwright img: Image is too big (size 7)\n');
});
