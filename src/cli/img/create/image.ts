// SPDX-License-Identifier: Apache-2.0
// Makes an image file for `img create` and `img convert`.
//
// All options are checked by the driver before the file is touched: the file is made (and an old
// one cut to nothing, after its locks were tested) only when the format asks for its `file`. When
// making the image fails, a file that was not there before is removed again.

import { BlockError, Permission } from '../../../base/index.js';
import { creationPath, protocolOf } from '../../../block/index.js';
import type { Backend, CreateContext, Driver } from '../../../block/index.js';
import { driverOptions } from '../../../drivers/options-catalog.js';
import { CliError } from '../../program.js';
import { OptionMistake } from './options.js';
import type { CreateMembers, OptionValues } from './options.js';
import type { Session } from '../session.js';

const SECTOR = 512;

/** Formats that a header may name; those without a driver here can be opened by others. */
export const BACKING_FORMATS: ReadonlySet<string> = new Set([
  ...Object.keys(driverOptions),
  'bochs', 'cloop', 'dmg', 'host_device', 'luks', 'nbd', 'null-aio', 'parallels', 'qcow',
  'qed', 'throttle', 'vdi', 'vhdx', 'vmdk', 'vpc',
]);

export interface CreateRequest {
  /** As it was given, perhaps with `file:` in front. */
  readonly path: string;
  readonly values: OptionValues;
  /** Bytes. */
  readonly size: number;
}

export async function createImage(session: Session, request: CreateRequest): Promise<void> {
  const path = creationPath(request.path);
  const existed = (await session.host.stat(path).catch(() => null)) !== null;
  let touched = false;
  const users: Backend[] = [];
  const makeFile = async (size: number, members: Record<string, unknown>): Promise<void> => {
    const driver = await session.registry.load('file');
    const options = { filename: path, size, ...members };
    touched = true;
    await driver.create?.(context, options);
  };
  const context: CreateContext = {
    host: session.host,
    async node() {
      await makeFile(0, {});
      const options = { driver: await protocolOf(session.host, path), filename: path };
      const node = await session.graph.open(options);
      const { consistentRead, write, resize, all } = Permission;
      const permissions = { taken: consistentRead | write | resize, shared: all & ~resize };
      users.push(await session.graph.attach(node, 'create', permissions));
      await session.graph.close(node);
      return node;
    },
  };
  const size = Math.ceil(request.size / SECTOR) * SECTOR;
  try {
    const { values } = request;
    if (values.format.name !== 'qcow2') await makeFile(size, rawMembers(values));
    else {
      const { members, driver } = await qcow2Create(session, values);
      await driver.create?.(context, { ...members, file: path, size });
    }
  } catch (error) {
    for (const user of users.splice(0)) await user.detach().catch(() => undefined);
    const isLocked = error instanceof BlockError && error.kind === 'locked';
    if (touched && !existed && !isLocked) {
      await session.host.removeFile(path).catch(() => undefined);
    }
    throw error;
  } finally {
    for (const user of users) await user.detach();
  }
}

async function qcow2Create(
  session: Session,
  values: OptionValues,
): Promise<{ members: CreateMembers; driver: Driver }> {
  const members = values.members();
  const mode = members['preallocation'];
  if (mode !== undefined && !['off', 'metadata', 'falloc', 'full'].includes(String(mode))) {
    throw unknownValue('preallocation', mode);
  }
  const backing = members['backing-fmt'];
  if (backing !== undefined && !BACKING_FORMATS.has(String(backing))) {
    throw unknownValue('backing-fmt', backing);
  }
  const compression = members['compression-type'];
  if (compression !== undefined && compression !== 'zlib' && compression !== 'zstd') {
    throw unknownValue('compression-type', compression);
  }
  return { members, driver: await session.registry.load('qcow2') };
}

function unknownValue(name: string, value: string | number | boolean): BlockError {
  const text = `Parameter '${name}' does not accept value '${value}'`;
  return new BlockError('invalid-option', text);
}

function rawMembers(values: OptionValues): CreateMembers {
  const members = values.members();
  const mode = members['preallocation'];
  if (mode === 'metadata') {
    throw new BlockError('invalid-option', 'Unsupported preallocation mode: metadata');
  }
  if (mode !== undefined && !['off', 'falloc', 'full'].includes(String(mode))) {
    throw new BlockError('invalid-option', `invalid parameter value: ${String(mode)}`);
  }
  return members;
}

/** A CliError with `prefix: ` before what the driver said. */
export function creationError(prefix: string, error: unknown): unknown {
  if (!(error instanceof BlockError)) return error;
  const because = error instanceof OptionMistake ? error.lines : error;
  return new CliError(`${prefix}: ${error.message}`, 1, because);
}
