-- What the levels look like, and the names that all scripts use; the gateway puts this before each of them.
--
-- KEYS[1] is the tenant's hash of levels. Its fields:
--   e                   (epoch, day of the last upkeep): the epoch is made with the hash, so another one means that the
--                       levels were lost
--   l|ID|UNIT|PERIOD    the state of one limit:
--     rate              (used, at_ms, rest, capacity, hidden): `used` of the bucket as of `at_ms`, more than the capacity
--                       where there is debt; `rest` is the part of the next refill that has come, in 1/period;
--                       `hidden` is use that a lowered capacity put out of sight, until it is raised again or refilled
--     day, month        (window, used, window, used): the two newest windows in any order; a window's number is
--                       period number x GENERATIONS + resets of the limit
--   i|BACKEND           (tokens per million bytes of text, samples, day of the last)
--   o|SCENARIO          (a high quantile of a choice's output in 1/1000 token, samples, day of the last)
-- Values are packed with cmsgpack. All numbers are integers below 2^53, where a double is exact.
--
-- A limit arrives as field, kind, unit, amount, capacity, period_ms, shadow; see `limits`, which puts where it ends first.
--
-- Functions are made anew at each run, and the more they capture the dearer that is: they take numbers rather than
-- a limit, and a script is put together from only those that it uses.

local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack
local floor, ceil = math.floor, math.ceil

local FIELD, KIND, UNIT, AMOUNT, CAPACITY, PERIOD_MS, SHADOW = 2, 3, 4, 5, 6, 7, 8
local RATE, DAY, CONCURRENCY = 1, 2, 4
local REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, COST = 1, 2, 3, 4, 5

local COUNT_MAX = 9007199254740991
local GENERATIONS = 1024
local DAY_MS = 86400000
local KEEP_DAYS = 40 -- a month's window and some days: what nobody touched for so long has nothing more to say

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
