// SPDX-License-Identifier: Apache-2.0
// `blockdev-backup` and `drive-backup`: their point in time is the moment at which the filter comes
// in, with the source drained.

import { toBlockError } from '../../base/index.js';
import { requireOperation } from '../../block/index.js';
import type { Node } from '../../block/index.js';
import { backingOf } from '../../block/copy/index.js';
import type { JobTransaction } from '../job-transaction.js';
import { createImageFile, imageFormat, openImageFile } from '../new-image.js';
import { prepareWork } from '../start.js';
import type { PreparedJob } from '../start.js';
import type { JobRegistry } from '../registry.js';
import { BackupWork } from './backup-work.js';
import type { BackupOptions, DriveBackupOptions } from './options.js';
import { planBackup } from './plan.js';
import type { BackupArguments, BackupPlan } from './plan.js';

export { backupOptions, driveBackupOptions } from './options.js';

/** Who calls it holds the source drained until the job is started or thrown away. */
export async function prepareBackup(
  registry: JobRegistry,
  args: BackupOptions,
  transaction?: JobTransaction,
): Promise<PreparedJob> {
  const source = registry.node(args.device);
  const target = registry.node(args.target);
  const plan = planBackup(registry, args, { source, target, ownsTarget: false });
  return prepare(registry, plan, { args, transaction });
}

/** The same, and what it creates stays when the job is thrown away. */
export async function prepareDriveBackup(
  registry: JobRegistry,
  args: DriveBackupOptions,
  transaction?: JobTransaction,
): Promise<PreparedJob> {
  const source = registry.node(args.device);
  const target = await makeTarget(registry, source, args);
  let plan: BackupPlan;
  try {
    plan = planBackup(registry, args, { source, target, ownsTarget: true });
  } catch (error) {
    await registry.graph.close(target);
    throw error;
  }
  return prepare(registry, plan, { args, transaction });
}

async function prepare(
  registry: JobRegistry,
  plan: BackupPlan,
  { args, transaction }: {
    readonly args: BackupArguments;
    readonly transaction: JobTransaction | undefined;
  },
): Promise<PreparedJob> {
  const id = args['job-id'] ?? '';
  const work = new BackupWork(registry, plan);
  await work.insertFilter(id);
  return prepareWork(registry, work, {
    setup: {
      id,
      type: 'backup',
      blockJob: true,
      autoFinalize: args['auto-finalize'] ?? true,
      autoDismiss: args['auto-dismiss'] ?? true,
      ...(transaction === undefined ? {} : { transaction }),
    },
    speed: args.speed ?? 0,
    startsDrained: true,
  });
}

/** Makes the file, unless it is to be there, and opens it; `none` needs the source below it. */
async function makeTarget(
  registry: JobRegistry,
  source: Node,
  args: DriveBackupOptions,
): Promise<Node> {
  const existing = args.mode === 'existing';
  const format = args.format ?? (existing ? null : source.driver.name);
  requireOperation(source, 'backup-source');
  const onSource = args.sync === 'none';
  if (!existing && format !== null) {
    const backing = onSource ? source : args.sync === 'top' ? backingOf(source) : null;
    await createImageFile(registry, {
      driver: await imageFormat(registry, format),
      filename: args.target,
      size: source.length,
      backing,
      // It is opened by what its header says, so the name must hold as it stands.
      ...(onSource ? {} : { backingName: 'checked' as const }),
    });
  }
  const target = await openImageFile(registry, {
    filename: args.target,
    format,
    name: null,
    like: source,
    backing: onSource ? 'none' : 'as-header-says',
    detectZeroes: 'unmap',
  });
  if (!onSource) return target;
  try {
    await registry.graph.setBacking(target, source);
    return target;
  } catch (error) {
    await registry.graph.close(target);
    throw toBlockError(error);
  }
}
