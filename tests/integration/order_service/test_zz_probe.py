import pytest
from shared.db.idempotency import IdempotencyStore, StoredAnswer
async def test_probe(world):
    st=world.container.idempotency
    a=await st.begin(caller="guest",route="r",key="k"*20,fingerprint=b"x")
    await world.rows("UPDATE idempotency_keys SET locked_until = now() - interval '1 second' RETURNING 1")
    b=await st.begin(caller="guest",route="r",key="k"*20,fingerprint=b"x")   # took over a paused process
    for c in (b,a):
        async with world.container.database.begin() as conn:
            await st.complete(c, StoredAnswer(201,{"who":c.owner_token},{}), connection=conn)
            print("EFFECT COMMITS FOR", c.owner_token)
    assert False
