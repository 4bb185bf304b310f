// SPDX-License-Identifier: Apache-2.0
// The header of a volume that is open, and the changes of its keyslots, one after the other.
//
// Each change begins with what was written before made durable, and with the header read anew: who
// else had the image open may have changed it. So after a failure the header in memory is what the
// area holds, or the next change is refused. The caller keeps others out meanwhile.

import { BlockError } from '../../base/index.js';
import type { LuksAmendMembers } from '../options.js';
import { amendKeyslots } from './amend.js';
import type { AmendTools, PasswordSource } from './amend.js';
import { encodeLuksHeader, parseLuksHeader } from './header.js';
import type { HeaderPlace, LuksHeader } from './header.js';
import type { LuksArea } from './keyslots.js';
import { HEADER_BYTES, KEYSLOTS_AT } from './layout.js';

export interface VolumeInUse extends HeaderPlace {
  readonly area: LuksArea;
  /** As it was read when the volume was opened. */
  readonly header: LuksHeader;
  /** Id of the secret that opened it. */
  readonly openedWith: string;
  /**
   * A copy of the password that a secret holds, which is wiped here. Throws kind `not-found`, and
   * `invalid-option` for what is no password.
   */
  readonly password: (id: string) => Uint8Array;
  /** For one change, which the signal ends. */
  readonly tools: (signal?: AbortSignal) => AmendTools;
}

export interface KeyslotChange {
  /** What may lose the data is done. */
  readonly force: boolean;
  readonly isCancelled?: () => boolean;
  /** Ends a derivation of a key that runs. */
  readonly signal?: AbortSignal;
  /** Keyslots that are done, of how many; not called for the last one. */
  readonly progress?: (done: number, total: number) => void;
}

export class HeaderInUse {
  readonly #volume: VolumeInUse;
  #header: LuksHeader;
  #last: Promise<void> = Promise.resolve();

  constructor(volume: VolumeInUse) {
    this.#volume = volume;
    this.#header = volume.header;
  }

  get header(): LuksHeader {
    return this.#header;
  }

  /**
   * Durable when it resolves. Throws kind `invalid-option` or `permission` for a change that is
   * refused, `cancelled` between two keyslots, `corrupt-image` where the header is another now.
   */
  amend(options: LuksAmendMembers, change: KeyslotChange): Promise<void> {
    const turn = this.#last.then(() => this.#amend(options, change));
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #amend(options: LuksAmendMembers, change: KeyslotChange): Promise<void> {
    const { area, tools, openedWith } = this.#volume;
    const { keyslot, 'iter-time': iterTime } = options;
    this.#header = await this.#readAgain();
    const wish = {
      state: options.state,
      keyslot: keyslot === undefined ? undefined : Number(keyslot),
      newPassword: this.#source(options['new-secret']),
      oldPassword: this.#source(options['old-secret']),
      password: this.#source(options.secret),
      openingPassword: this.#requiredSource(openedWith),
      iterTimeMs: iterTime === undefined ? undefined : Number(iterTime),
    };
    const checkpoint = (): void => {
      if (change.isCancelled?.() !== true) return;
      throw new BlockError('cancelled', 'The change of keyslots was cancelled');
    };
    try {
      const place = { area, header: this.#header };
      const means = { ...change, tools: tools(change.signal), checkpoint };
      this.#header = await amendKeyslots(place, wish, means);
    } catch (error) {
      await this.#catchUp();
      throw error;
    }
  }

  #source(id: string | undefined): PasswordSource | undefined {
    return id === undefined ? undefined : this.#requiredSource(id);
  }

  #requiredSource(id: string): PasswordSource {
    return () => this.#volume.password(id);
  }

  async #readAgain(): Promise<LuksHeader> {
    const { area, detached } = this.#volume;
    await area.flush();
    const header = parseLuksHeader(await area.read(0, HEADER_BYTES), { detached });
    if (isSameVolume(header, this.#volume.header)) return header;
    throw new BlockError(
      'corrupt-image',
      'LUKS header: it is not that of the volume any more which was opened',
    );
  }

  /** What can be read is believed; where nothing can, the next change will find that too. */
  async #catchUp(): Promise<void> {
    try {
      this.#header = await this.#readAgain();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
  }
}

/** Whether both have one master key and payload, whatever their keyslots. */
export function isSameVolume(one: LuksHeader, other: LuksHeader): boolean {
  return Buffer.compare(fixedPart(one), fixedPart(other)) === 0;
}

/** All of it but the keyslots. */
function fixedPart(header: LuksHeader): Uint8Array {
  return encodeLuksHeader(header).subarray(0, KEYSLOTS_AT);
}
