// SPDX-License-Identifier: Apache-2.0
// A change of the header failed halfway: it is not known which header is on disk. Nothing is
// written to the image, and no bit says so, until the way back succeeds, where there is one.

export class HeaderDoubt {
  /** Called when a way back becomes due before the next change. */
  onWayBack: () => void = ignore;
  #isRaised = false;
  /** Makes it certain again which header is on disk. */
  #wayBack: (() => Promise<void>) | null = null;
  #regaining: Promise<void> | null = null;

  get isRaised(): boolean {
    return this.#isRaised;
  }

  get hasWayBack(): boolean {
    return this.#wayBack !== null;
  }

  raise(wayBack: (() => Promise<void>) | null = null): void {
    this.#isRaised = true;
    this.#wayBack = wayBack;
    if (wayBack !== null) this.onWayBack();
  }

  /** All is read anew from what is on disk. */
  clear(): void {
    this.#isRaised = false;
    this.#wayBack = null;
  }

  /** Tries the way back again, once for all who ask meanwhile; rejects where it fails. */
  regain(): Promise<void> {
    this.#regaining ??= this.#goBack().finally(() => {
      this.#regaining = null;
    });
    return this.#regaining;
  }

  async #goBack(): Promise<void> {
    if (this.#wayBack === null) return;
    await this.#wayBack();
    this.clear();
  }
}

function ignore(): void {
  return undefined;
}
