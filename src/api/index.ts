// SPDX-License-Identifier: Apache-2.0
// Every QMP command and event, by name: the contract between server and client.

import * as bitmap from './bitmap.js';
import * as blockChange from './block-change.js';
import * as blockCore from './block-core.js';
import * as blockJob from './block-job.js';
import * as blockQuery from './block-query.js';
import * as char from './char.js';
import * as control from './control.js';
import * as eventDeclarations from './events.js';
import * as job from './job.js';
import * as object from './object.js';
import { transactionCommand } from './transaction.js';
import type { ArgumentsOf, CommandDeclaration, DataOf, ResultOf } from '../schema/index.js';
import type { EventDeclaration } from '../schema/index.js';

const { qmpCapabilities, queryVersion, queryCommands, queryQmpSchema, quit } = control;
const { queryJobs, jobPause, jobResume, jobCancel, jobComplete, jobDismiss, jobFinalize } = job;

const declarations = [
  qmpCapabilities,
  queryVersion,
  queryCommands,
  queryQmpSchema,
  quit,
  queryJobs,
  jobPause,
  jobResume,
  jobCancel,
  jobComplete,
  jobDismiss,
  jobFinalize,
  blockJob.queryBlockJobs,
  blockJob.blockJobPause,
  blockJob.blockJobResume,
  blockJob.blockJobCancel,
  blockJob.blockJobComplete,
  blockJob.blockJobDismiss,
  blockJob.blockJobFinalize,
  blockJob.blockJobSetSpeed,
  blockJob.blockJobChange,
  blockJob.blockStream,
  blockJob.blockCommit,
  blockJob.blockdevMirror,
  blockJob.driveMirror,
  blockJob.blockdevBackup,
  blockJob.driveBackup,
  blockJob.blockdevCreate,
  blockJob.xBlockdevAmend,
  blockJob.blockdevAmend,
  blockCore.blockdevAdd,
  blockCore.blockdevDel,
  blockCore.blockdevReopen,
  blockCore.xBlockdevReopen,
  blockCore.queryNamedBlockNodes,
  blockCore.debugQueryBlockGraph,
  blockQuery.queryBlock,
  blockQuery.queryBlockstats,
  blockChange.blockResize,
  blockChange.blockSetWriteThreshold,
  blockChange.blockdevSnapshot,
  blockChange.blockdevSnapshotSync,
  blockChange.blockdevSnapshotInternalSync,
  blockChange.blockdevSnapshotDeleteInternalSync,
  blockChange.changeBackingFile,
  blockChange.xBlockdevChange,
  blockChange.xBlockdevSetIothread,
  bitmap.blockDirtyBitmapAdd,
  bitmap.blockDirtyBitmapRemove,
  bitmap.blockDirtyBitmapClear,
  bitmap.blockDirtyBitmapEnable,
  bitmap.blockDirtyBitmapDisable,
  bitmap.blockDirtyBitmapMerge,
  bitmap.xBlockDirtyBitmapEnable,
  bitmap.xBlockDirtyBitmapDisable,
  bitmap.xBlockDirtyBitmapMerge,
  bitmap.debugBlockDirtyBitmapSha256,
  char.queryChardev,
  char.queryChardevBackends,
  char.ringbufWrite,
  char.ringbufRead,
  char.chardevAdd,
  char.chardevChange,
  char.chardevRemove,
  char.chardevSendBreak,
  transactionCommand,
  object.objectAdd,
  object.objectDel,
  object.qomList,
  object.qomGet,
  object.qomSet,
  object.qomListTypes,
  object.qomListProperties,
] as const;

const eventList = Object.values(eventDeclarations).filter(
  (entry): entry is Extract<typeof entry, { readonly declares: 'event' }> => 'declares' in entry,
);

type Declared = (typeof declarations)[number];
type DeclaredEvent = (typeof eventList)[number];

export type CommandName = Declared['name'];
export type EventName = DeclaredEvent['name'];
export type Declaration<N extends CommandName> = Extract<Declared, { readonly name: N }>;
export type CommandArguments<N extends CommandName> = ArgumentsOf<Declaration<N>>;
export type CommandResult<N extends CommandName> = ResultOf<Declaration<N>>;
export type EventData<N extends EventName> = DataOf<Extract<DeclaredEvent, { readonly name: N }>>;

/** In the order in which query-commands lists them. */
export const commands: ReadonlyMap<string, CommandDeclaration> = new Map(
  declarations.map((entry) => [entry.name, entry as CommandDeclaration]),
);

export const events: ReadonlyMap<string, EventDeclaration> = new Map(
  eventList.map((entry) => [entry.name, entry as EventDeclaration]),
);

export type { ChardevBackendValue } from './char.js';
export { blockdevOptions } from './blockdev-options.js';
export type { ImageInfoValue } from './node-info.js';
export { jobStatus, jobType } from './job.js';
export { objectOptions } from './object.js';
export type { ActionData, ActionName } from './transaction.js';
export { VERSION } from './control.js';
export { memberDocs } from './member-docs.js';
export { typeDocs } from './type-docs.js';
