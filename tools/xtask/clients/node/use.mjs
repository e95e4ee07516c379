// @aws-sdk/client-s3 and lib-storage, version 3: objects, streams, parts, conditions, listing.
//
// usage: use.mjs ENDPOINT BUCKET short|full; see python/checks.py for what all such programs share.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";

import {
  AbortMultipartUploadCommand, CopyObjectCommand, CreateMultipartUploadCommand,
  DeleteBucketCommand, DeleteObjectsCommand, GetObjectCommand, HeadObjectCommand,
  ListMultipartUploadsCommand, ListObjectsV2Command, PutObjectCommand, S3Client,
  UploadPartCommand, paginateListObjectsV2, waitUntilObjectNotExists,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";

const [endpoint, Bucket, form] = process.argv.slice(2);
const MIB = 1 << 20;
const s3 = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, maxAttempts: 1 });

/** Bytes that follow from a seed: counted blocks, hashed. */
function blob(seed, length) {
  const blocks = [];
  for (let at = 0; at * 32 < length; at += 1) {
    blocks.push(createHash("sha256").update(`${seed} ${at}`).digest());
  }
  return Buffer.concat(blocks).subarray(0, length);
}

const put = (Key, Body, options = {}) => s3.send(new PutObjectCommand({ Bucket, Key, Body, ...options }));

async function get(Key, options = {}) {
  const answer = await s3.send(new GetObjectCommand({ Bucket, Key, ...options }));
  return Buffer.from(await answer.Body.transformToByteArray());
}

/** The answer must be an error of this name or status. */
async function refused(code, promise) {
  const error = await promise.then(() => null, (error) => error);
  assert(error, `succeeded, expected ${code}`);
  assert([error.name, error.$metadata?.httpStatusCode].includes(code), `${error}, expected ${code}`);
}

function same(left, right, what) {
  assert(left.equals(right), `${what}: other bytes came back`);
}

const checks = {
  async "objects of many sizes"() {
    for (const length of [0, 1, 8191, 8192, 70000, 3 * MIB + 1]) {
      const body = blob(length, length);
      await put(`sizes/${length}`, body);
      same(await get(`sizes/${length}`), body, `${length} bytes`);
    }
    await refused("NoSuchKey", get("never-was"));
  },

  async "checksums of every kind"() {
    for (const ChecksumAlgorithm of ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]) {
      const answer = await put("sums", blob(1, 70000), { ChecksumAlgorithm });
      const head = await s3.send(new HeadObjectCommand({ Bucket, Key: "sums", ChecksumMode: "ENABLED" }));
      assert(answer[`Checksum${ChecksumAlgorithm}`]);
      assert.equal(head[`Checksum${ChecksumAlgorithm}`], answer[`Checksum${ChecksumAlgorithm}`]);
    }
  },

  async "a stream in parts"() {
    const body = blob(2, (form === "short" ? 17 : 64) * MIB + 5);
    const pieces = [];
    for (let at = 0; at < body.length; at += 100_000) pieces.push(body.subarray(at, at + 100_000));
    const params = { Bucket, Key: "stream", Body: Readable.from(pieces) };
    await new Upload({ client: s3, params, partSize: 8 * MIB, queueSize: 3 }).done();
    same(await get("stream"), body, "the stream");
    same(await get("stream", { Range: "bytes=8388600-8388700" }), body.subarray(8388600, 8388701), "a range");
    same(await get("stream", { PartNumber: 2 }), body.subarray(8 * MIB, 16 * MIB), "a part");
  },

  async "a body whose length is told"() {
    const body = blob(3, 300_000);
    await put("told", Readable.from([body.subarray(0, 1000), body.subarray(1000)]), { ContentLength: body.length });
    same(await get("told"), body, "the body");
  },

  async "an upload given up"() {
    const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ Bucket, Key: "given-up" }));
    const part = { Bucket, Key: "given-up", UploadId, PartNumber: 1, Body: "x" };
    await s3.send(new UploadPartCommand(part));
    const { Uploads } = await s3.send(new ListMultipartUploadsCommand({ Bucket }));
    assert.deepEqual(Uploads.map((upload) => upload.Key), ["given-up"]);
    await s3.send(new AbortMultipartUploadCommand({ Bucket, Key: "given-up", UploadId }));
    await refused("NoSuchUpload", s3.send(new UploadPartCommand(part)));
  },

  async "conditional put and get"() {
    const { ETag } = await put("once", "1", { IfNoneMatch: "*" });
    await refused("PreconditionFailed", put("once", "2", { IfNoneMatch: "*" }));
    await put("once", "3", { IfMatch: ETag });
    await refused("PreconditionFailed", put("once", "4", { IfMatch: ETag }));
    await refused("PreconditionFailed", get("once", { IfMatch: ETag }));
    assert.equal((await get("once")).toString(), "3");
  },

  async "of many first writers one wins"() {
    const writers = Array.from({ length: 8 }, (_, number) => put("race", `${number}`, { IfNoneMatch: "*" }));
    const outcomes = await Promise.allSettled(writers);
    const won = outcomes.flatMap(({ status }, number) => (status === "fulfilled" ? [`${number}`] : []));
    assert.deepEqual(won, [(await get("race")).toString()]);
  },

  async "metadata and a copy"() {
    await put("meta", "x", { Metadata: { who: "me" }, ContentType: "text/x-odd" });
    await s3.send(new CopyObjectCommand({ Bucket, Key: "copied", CopySource: `${Bucket}/meta` }));
    const head = await s3.send(new HeadObjectCommand({ Bucket, Key: "copied" }));
    assert.deepEqual([head.Metadata, head.ContentType], [{ who: "me" }, "text/x-odd"]);
  },

  async "listing in pages"() {
    const names = ["list/a/1", "list/a/2", "list/b b+%20/1", "list/ünï/日本", "list/z"];
    for (const name of names) await put(name, "x");
    const found = [];
    const input = { Bucket, Prefix: "list/" };
    for await (const page of paginateListObjectsV2({ client: s3, pageSize: 2 }, { ...input })) {
      found.push(...page.Contents.map((entry) => entry.Key));
    }
    assert.deepEqual(found, names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
    const top = await s3.send(new ListObjectsV2Command({ ...input, Delimiter: "/" }));
    assert.equal(top.CommonPrefixes.length, 3);
    assert.deepEqual(top.Contents.map((entry) => entry.Key), ["list/z"]);
  },

  async removal() {
    for await (const page of paginateListObjectsV2({ client: s3 }, { Bucket })) {
      const Objects = page.Contents.map(({ Key }) => ({ Key }));
      const { Errors } = await s3.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
      assert(!Errors?.length, JSON.stringify(Errors));
    }
    await waitUntilObjectNotExists({ client: s3, maxWaitTime: 10 }, { Bucket, Key: "once" });
    await s3.send(new DeleteBucketCommand({ Bucket }));
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`PASS ${name}`);
  } catch (error) {
    console.log(`FAIL ${name}: ${String(error).split("\n").slice(0, 3).join(" ").slice(0, 300)}`);
  }
}
console.log("done");
