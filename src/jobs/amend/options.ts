// SPDX-License-Identifier: Apache-2.0
// Arguments of `x-blockdev-amend` as the job sees them. The union of the drivers' amend options is
// put together from the drivers' own declarations, above this floor.

export interface AmendJobOptions {
  readonly 'job-id': string;
  readonly 'node-name': string;
  /** Validated against the amend options of its driver. */
  readonly options: Readonly<Record<string, unknown>> & { readonly driver: string };
  readonly force?: boolean;
}
