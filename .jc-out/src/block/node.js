// SPDX-License-Identifier: Apache-2.0
// A vertex of the graph: a driver's open instance behind the request pipeline.
export {};
