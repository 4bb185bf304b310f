// SPDX-License-Identifier: Apache-2.0
// block-commit, compared with a real daemon line by line: refusals, events, graph, links on disk.

import { describe, it } from 'vitest';

import {
  compare,
  graphByNames,
  hasReference,
  hello,
  openAll,
  withoutSizes,
} from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const graph = command('x-debug-query-block-graph');

function commit(args: Line): string {
  return command('block-commit', { device: 'over', 'job-id': 'c', ...args });
}

function until(event: string, args: Line): Step {
  return untilEvent(event, 'block-commit', { device: 'over', 'job-id': 'c', ...args });
}

describe.skipIf(!hasReference)('as a real daemon commits', () => {
  it('commit refuses bad arguments with the same words and events', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      command('blockdev-add', { driver: 'null-co', 'node-name': 'alone', size: 4194304 }),
      command('block-commit', { device: 'no' }),
      command('block-commit', { device: 'no', 'job-id': '1x', speed: -1 }),
      command('block-commit', { device: 'over' }),
      command('block-commit', { device: 'over', 'top-node': 'top' }),
      commit({ 'job-id': '1x' }),
      commit({ 'job-id': '1x', 'top-node': 'top' }),
      commit({ speed: -1 }),
      commit({ speed: -1, 'top-node': 'top' }),
      commit({ top: 'top.qcow2', 'top-node': 'top' }),
      commit({ base: 'base.qcow2', 'base-node': 'base' }),
      commit({ 'top-node': 'no' }),
      commit({ 'top-node': 'alone' }),
      commit({ 'base-node': 'no' }),
      commit({ 'base-node': 'alone' }),
      commit({ top: 'nowhere' }),
      commit({ base: 'nowhere' }),
      commit({ 'top-node': 'base' }),
      commit({ 'top-node': 'top', 'base-node': 'top' }),
      commit({ 'top-node': 'base', 'base-node': 'top' }),
      commit({ 'top-node': 'over', 'backing-file': 'x' }),
      commit({ 'top-node': 'top', 'filter-node-name': 'over' }),
      commit({ 'top-node': 'top', 'filter-node-name': '1x' }),
      commit({ 'filter-node-name': '1x' }),
      commit({ 'filter-node-name': 'over' }),
      commit({ 'on-error': 'bogus' }),
      command('block-commit', { device: 'alone', 'job-id': 'c' }),
      command('block-commit', { device: 'base', 'job-id': 'c' }),
      command('block-commit', { device: 'top', 'job-id': 'c' }),
      command('query-jobs'),
      graph,
    ], graphByNames));

  it('a commit between images runs to its end and leaves the same graph', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      until('null c', { 'top-node': 'top' }),
      graph,
      command('query-jobs'),
      command('blockdev-del', { 'node-name': 'top' }),
      command('blockdev-del', { 'node-name': 'over' }),
      command('blockdev-del', { 'node-name': 'base' }),
    ], graphByNames));

  it('a commit that finalizes by hand tells the same story', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      until('BLOCK_JOB_PENDING', {
        'top-node': 'top', 'auto-finalize': false, 'auto-dismiss': false,
      }),
      graph,
      command('query-jobs'),
      command('query-block-jobs'),
      command('job-complete', { id: 'c' }),
      command('block-stream', { device: 'over', 'job-id': 's' }),
      command('block-commit', { device: 'over', 'job-id': 'd' }),
      command('blockdev-mirror', { device: 'over', target: 'copy', sync: 'full', 'job-id': 'm' }),
      command('blockdev-del', { 'node-name': 'over' }),
      command('job-finalize', { id: 'c' }),
      command('query-jobs'),
      command('job-dismiss', { id: 'c' }),
      graph,
    ], graphByNames));

  for (const filter of [{}, { 'filter-node-name': 'filter' }]) {
    const kind = 'filter-node-name' in filter ? 'named' : 'nameless';
    it(`the ${kind} filter of a commit is seen in the list of nodes`, () =>
      compare((directory) => [
        hello,
        ...openAll(directory),
        until('BLOCK_JOB_PENDING', { ...filter, 'top-node': 'top', 'auto-finalize': false }),
        command('query-named-block-nodes', { flat: true }),
        command('job-finalize', { id: 'c' }),
        command('query-named-block-nodes', { flat: true }),
      ], withoutSizes));
  }

  it('a commit is cancelled while pending, and nothing has changed', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      until('BLOCK_JOB_PENDING', { 'top-node': 'top', 'auto-finalize': false }),
      command('job-cancel', { id: 'c' }),
      graph,
    ], graphByNames));

  it('an active commit gets ready and completes', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      until('BLOCK_JOB_READY', { 'auto-dismiss': false, 'filter-node-name': 'filter' }),
      graph,
      command('query-jobs'),
      command('query-block-jobs'),
      command('job-finalize', { id: 'c' }),
      command('job-dismiss', { id: 'c' }),
      untilEvent('concluded c', 'job-complete', { id: 'c' }),
      command('query-jobs'),
      graph,
      command('job-dismiss', { id: 'c' }),
      command('blockdev-del', { 'node-name': 'over' }),
      command('blockdev-del', { 'node-name': 'top' }),
      command('blockdev-del', { 'node-name': 'base' }),
    ], graphByNames));

  it('an active commit into the image below is paused, asked to complete, and resumed', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      until('BLOCK_JOB_READY', { 'base-node': 'top', 'auto-finalize': false }),
      untilEvent('standby c', 'job-pause', { id: 'c' }),
      command('job-pause', { id: 'c' }),
      command('block-job-cancel', { device: 'c' }),
      command('job-complete', { id: 'c' }),
      command('query-block-jobs'),
      untilEvent('BLOCK_JOB_PENDING', 'job-resume', { id: 'c' }),
      command('query-block-jobs'),
      graph,
      command('job-finalize', { id: 'c' }),
      graph,
    ], graphByNames));

  for (const [name, verb, args] of [
    ['without force ends well and changes no link', 'block-job-cancel', { device: 'c' }],
    ['with force aborts it', 'block-job-cancel', { device: 'c', force: true }],
    ['as a job aborts it', 'job-cancel', { id: 'c' }],
  ] as const) {
    it(`a cancel of a ready active commit ${name}`, () =>
      compare((directory) => [
        hello,
        ...openAll(directory),
        until('BLOCK_JOB_READY', {}),
        untilEvent('null c', verb, args),
        graph,
      ], graphByNames));
  }

  it('file names find images, and the base is named as it is told', () =>
    compare((directory) => [
      hello,
      // Opened for the one above, as its header says.
      top(directory, 'over'),
      until('null c', {
        top: `${directory}/top.qcow2`, base: `${directory}/base.qcow2`, 'backing-file': 'other',
      }),
      command('query-named-block-nodes', { flat: true }),
    ], onlyLinks));
});

function top(directory: string, name: string): string {
  const file = { driver: 'file', filename: `${directory}/${name}.qcow2` };
  return command('blockdev-add', { driver: 'qcow2', 'node-name': name, file });
}

/** Of nodes only what their headers say. */
function onlyLinks(line: Line): Line {
  const nodes = line['return'];
  if (!Array.isArray(nodes)) return line;
  const links = (nodes as Line[]).map((node) => {
    const image = node['image'] as Line;
    return [image['filename'], image['backing-filename'], image['backing-filename-format']];
  });
  return { return: links.filter(([, link]) => link !== undefined).map(String).toSorted() };
}
